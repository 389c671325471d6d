"""A whole RunPod on this machine: a stand-in for the platform on the loopback interface, and real workers behind it.

    job, queue        the jobs of an endpoint as a state machine, without a clock or a socket
    endpoint          the queue while it runs: a clock, the workers, and everyone who waits
    worker_api        the side that the SDK of a worker talks to
    client_api        the side that clients talk to
    openai_api        the same for clients of OpenAI's API
    faults, webhooks  what a network does to requests; what a finished job sends out
    server            all of it over HTTP
    processes         workers in processes of their own, and pools of them
    workers           the real handler, fed by the platform
    celery_workers    the same worker, fed by Celery
    behind            one or the other, as what stands behind a gateway
    serve             a worker, its queue and a gateway in front, by one command

`python -m local_platform` (`make platform`) serves the platform alone, `python -m local_platform.serve` (`make serve`)
the whole system. Nothing of the product imports it.
"""
