# The worker's image: the code and the bundled model. FLUX's weights are not in it; they are on the volume or among
# RunPod's cached models (docs/deploy.md), so that an update of the code moves megabytes and not tens of gigabytes.
#
#   docker build --tag flux-worker .
#   docker run --rm flux-worker                        # one picture by the bundled model, on any machine
#   docker run --rm --gpus all flux-worker python -u -m flux_engine "a red sun" --model flux-tiny
#
# The layers stand in the order in which they change: system, requirements, bundled model, code.
FROM python:3.11-slim-bookworm AS code
COPY builder/__init__.py builder/fetch_file.py builder/fetch_models.py /app/builder/
COPY flux_engine /app/flux_engine
COPY handler.py test_input.json LICENSE /app/
# The code's byte code is in the image, as pip leaves the libraries': else every container compiles 170 modules at start.
# Modes are set before the image's layers are made: chmod in the image would store every file again.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app/flux_engine \
    && chmod -R a+rX /app \
    && mkdir /bundled && mv /app/flux_engine/models/flux_tiny* /bundled

FROM python:3.11-slim-bookworm

# torch.compile builds its kernels on the worker: triton calls a C compiler, inductor's CPU side a C++ one.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH

# torch's default wheel carries CUDA 13 and needs driver 580 or newer: select CUDA 13.0 for the endpoint. For older
# drivers give an index with builds for them: --build-arg PIP_EXTRA_INDEX_URL=... No secret goes in here: what a private
# index or a private model needs would stay in the image's history.
ARG PIP_EXTRA_INDEX_URL
COPY builder/setup.sh builder/requirements.txt builder/requirements-bare.txt builder/requirements-celery.txt builder/
# For workers on Celery: --build-arg EXTRA_REQUIREMENTS=builder/requirements-celery.txt
ARG EXTRA_REQUIREMENTS
RUN PIP_NO_CACHE_DIR=1 PYTHON=python3 VENV=/opt/venv bash builder/setup.sh builder/requirements.txt \
    builder/requirements-bare.txt ${EXTRA_REQUIREMENTS}

# `docker run` without a platform leaves its pictures in outputs. The compose file mounts a volume at /models: a fresh
# one gets the owner of what the image has there, and is root's where the image has nothing.
RUN useradd --create-home --uid 1000 flux && install -d -o flux /app/outputs /models

COPY --from=code /bundled flux_engine/models
COPY --from=code /app ./

# The SDK's default level logs prompts and results.
ENV RUNPOD_LOG_LEVEL=INFO

# On a GPU the SDK's automatic checks import torch and make a CUDA context before its heartbeat process is forked, ping
# 8.8.8.8 and want a tenth of the disk free. The worker's own checks (flux_engine/health.py) look at driver and disk, and
# the SDK's test of the GPU's memory, in a process of its own, still runs.
ENV RUNPOD_SKIP_AUTO_SYSTEM_CHECKS=true

# RunPod mounts a network volume that only root can write to, and LoRAs and compile caches are kept there. Where the
# volume is writable for uid 1000, or nothing has to be written: --build-arg RUN_AS=flux
ARG RUN_AS=root
USER ${RUN_AS}

# Python as process 1: signals reach the worker itself, and no heartbeat outlives it.
CMD ["python", "-u", "handler.py"]
