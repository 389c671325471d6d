"""How a job reaches a worker and what the queue knows of it.

    job_queue   JobQueue, the seam, and what it says
    runpod      RunPod's queue over HTTP
    celery      the queue's side of Celery on Redis; records, parcel: what both sides tell one another
    held_jobs   the worker's side: a job under a lease; celery_worker is the process around it

The gateway asks; it never waits inside a queue, and keeps a ledger of its own (gateway/tasks/).
"""
