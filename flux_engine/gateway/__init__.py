"""REST in front of the workers: users, limits, tasks that are never lost, events, results.

    app        the FastAPI application and what it is made of
    routes/    one module a group of endpoints; no logic beyond HTTP
    tasks/     the ledger of tasks, their way to the queue and back, events
    security/  who is asking: keys, tokens, scopes
    limits/    how much: requests, work, tasks in flight, the fair line
    webhooks/  telling clients
    seams      what these rooms promise one another

It holds no GPU and imports no torch: a job is parsed by `job/`, the same code as the worker's, and reaches a worker
through `queues/`. What it may import is checked by import-linter.
"""
