"""What one can ask without having a picture made: what is served, and what a job would cost.

    questions      Questions: a job's `input` with `op` -> its answer, on a worker
    capabilities   models, schemas, limits and LoRAs of an endpoint, as one answer
    estimate       a job's work, seconds and money, as one answer
    speed          what jobs took before -> how long one takes

`questions` asks the worker's parts; the rest is pure, so that the gateway answers by it too. No torch, no turn on the
GPU, no download.
"""
