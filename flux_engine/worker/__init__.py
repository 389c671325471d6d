"""One job, start to finish.

`worker.Worker` is the boundary around a job and its six steps; `run.Run` is one job on its way through them. Every room
but the platforms' own may be used here; only what builds or drives a worker comes in.
"""
