"""A stand-in for RunPod on the loopback interface, and the tests of the worker against it.

    job, queue        the jobs of an endpoint as a state machine, without a clock or a socket
    endpoint          the queue while it runs: a clock, the workers, and everyone who waits
    worker_api        the side that the SDK of a worker talks to
    client_api        the side that clients talk to
    faults, webhooks  what a network does to requests; what a finished job sends out
    server            all of it over HTTP
    workers           the real handler in processes of its own

`python -m tests.runpod` (`make platform`) serves it for people.
"""
