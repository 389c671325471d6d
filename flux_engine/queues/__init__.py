"""How a job reaches a worker and what the queue knows of it.

    job_queue       JobQueue, the seam, and what it says
    runpod          RunPod's queue over HTTP
    celery          the queue's side of Celery on Redis; records, parcel: what both sides tell one another
    celery_settings what both sides must agree on
    celery_worker   the worker's side: the process; held_jobs: its jobs, each under a lease
    worker_health   what probes and Prometheus ask of it; worker_metrics: its numbers

The gateway asks; it never waits inside a queue, and keeps a ledger of its own (gateway/tasks/).
"""
