"""Tasks: what was asked for, how far it is, and how it ends.

wanted        one request for a task, and what became of it
intake        from a request to a task: checked, answered from the cache, or in line
named         what a job names, refused where a worker would refuse it
kept          what a task was made from, long parts in the store
hits          tasks that the cache answers
ledger/       all of them, in Redis: written before the queue is asked
submit        a task's way to the queue
sweep         the watchdog: every accepted task ends in one truthful state
look          one look of it at one task, and what follows
reports       what the queue's word means for a task
outcomes      a result or an error, made the end of its task
cancellation  a task that its user takes back
endings       the end of a task, and what follows from it
results       the files of finished tasks
events        telling those who watch
pace          how often the sweep looks
"""
