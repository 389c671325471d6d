"""Every accepted task, in Redis, written before the queue is asked.

ledger      tasks changed and ended
beginnings  tasks made, once for a key
reader      one task, many, a user's newest
agenda      which task to look at next, who submits it
holders     which tasks have a file
loose       which files wait for their task
news        what the ledger is told, and watchers hear
keys        the names of its keys
lua         its atomic steps
scripts     how they are run
"""
