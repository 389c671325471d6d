"""How a job reaches a worker and what the queue knows of it.

    job_queue   JobQueue, the seam, and what it says
    runpod      RunPod's queue over HTTP

The gateway asks; it never waits inside a queue, and keeps a ledger of its own (gateway/tasks/).
"""
