"""Tasks: what was asked for, how far it is, and how it ends.

task      one task, as a value, and as clients see it
ledger    all of them, in Redis: written before the queue is asked
events    telling those who watch
submit    a task's way to the queue
sweep     the watchdog: every accepted task ends in one truthful state
"""
