"""What people would use instead: as a competent user of diffusers and the RunPod SDK writes it after their examples.

    worker.py    the pipeline at import, a plain function as handler, Pillow's PNG, the upload before it returns
    gateway.py   FastAPI in front of an endpoint, a thread a job

Fair means: the same model, the same SDK and queue, the same quiet log, one client for the bucket, nothing slowed down.
It checks nothing, remembers nothing, reports no progress and cannot be cancelled; what that costs and saves is what the
comparisons show.
"""
