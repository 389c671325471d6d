"""A client for an endpoint of flux-engine on RunPod: jobs, their progress, and their files.

client      FluxClient, for code without asyncio
aio         AsyncFluxClient, for code with it
protocol    what both send, wait for and send again, without a socket
job         the types of jobs, made from the worker's schemas
result      progress, results and files
errors      what a call can fail with
"""

from flux_client.aio import AsyncFluxClient, AsyncJob
from flux_client.client import FluxClient, Job
from flux_client.errors import (
    FluxClientError,
    JobCancelled,
    JobFailed,
    JobTimedOut,
    NotReached,
    Refused,
    ResultLost,
)
from flux_client.job import ImageJob, VideoJob
from flux_client.result import File, Progress, Result

__all__ = [
    "AsyncFluxClient",
    "AsyncJob",
    "File",
    "FluxClient",
    "FluxClientError",
    "ImageJob",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobTimedOut",
    "NotReached",
    "Progress",
    "Refused",
    "Result",
    "ResultLost",
    "VideoJob",
]
