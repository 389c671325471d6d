"""REST in front of the workers: users, limits, tasks that are never lost, events, results.

    app        the FastAPI application; bodies and problems: what stands around its routes
    routes/    one module a group of endpoints; no logic beyond HTTP
    page/      the page at `/`: files that routes/page.py serves
    tasks/     the ledger of tasks, their way to the queue and back, events
    security/  who is asking: keys, tokens, scopes
    limits/    how much: requests, work, tasks in flight, the fair line
    webhooks/  telling clients
    watching/  what an operator sees: ids, traces, numbers
    seams      what these rooms promise one another
    gateway    Gateway: all of them together; assembly makes it from its settings, on redis_pool
    task       one task, as a value
    offer      what workers serve, as they say; capacity: how many there are; asking: questions without a worker

It holds no GPU and imports no torch: a job is parsed by `job/`, the same code as the worker's, and reaches a worker
through `queues/`. What it may import is checked by import-linter.
"""
