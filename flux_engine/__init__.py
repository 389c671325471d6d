"""FLUX images and videos as a service: a worker for RunPod's queue, and what stands around it.

The rooms are named by the steps of a job:

    worker/      the boundary around one job, and its six steps
    job/         1 parse: a client's dictionary -> ImageJob | VideoJob, once
    inputs/      2 inputs: the LoRAs and pictures that a job names, fetched, checked and known by content
    net/           the only doors to an address that a stranger named
    cache/       3 reuse: fingerprint -> a hit, a wait for a twin, or the claim to generate
    generate/    4 generate: pictures and frames, on the one thread that touches the device
    models/        what a FLUX is, how it fits on a card, loaded and tuned; LoRAs in it
    media/       5 encode: pixels -> files, and the pictures that clients send -> pixels
    results/     6 deliver: bucket, folder or inline; measured once
    progress.py  one ordered, throttled stream beside all of these
    ask/         what is served and what a job would cost: questions that need no GPU
    openai/      OpenAI's images API, translated into jobs and back
    runpod_sdk/  what RunPod's SDK leaves open, for handler.py
    queues/      how a job reaches a worker: RunPod's queue, Celery
    gateway/     REST in front: users, limits, tasks that are never lost, a page
    cli/         the same worker for people, at a terminal

Imports go down this list and never back up; `lint-imports` holds it (pyproject.toml). torch and diffusers are imported
in models/ and generate/ alone, when a job has to be generated.
"""

__version__ = "0.1.0"
