"""One job, start to finish: parse, generate, encode, deliver.

`Worker.run` takes the platform's job dictionary and returns a fresh dictionary for the platform: the contract's
result, or `{"error": JSON}`. It never raises an Exception, and is the only place that catches broadly. A cancellation
passes through once the device is free.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flux_engine.delivery import as_utc, deliver, encode_images, within_limit
from flux_engine.errors import FluxError, Internal
from flux_engine.generate.gpu import Cancellation, GpuThread
from flux_engine.generate.image import Generated, ImageGenerator
from flux_engine.generate.text import PromptEncoder
from flux_engine.job import ImageJob, JsonObject, ParseContext, job_id, parse_job
from flux_engine.models.manager import FluxModelManager, LoadedModel
from flux_engine.progress import MIN_INTERVAL_S, Progress, Send

if TYPE_CHECKING:
    from flux_engine.storage.results import ResultStore

TIMINGS: Final = ("load", "lora", "text", "denoise", "decode", "encode", "upload")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """What came from the GPU thread."""

    model: LoadedModel
    load_ms: float
    generated: Generated


class Worker:
    """Runs jobs. One a process; holds the GPU thread, the models and the store for results."""

    def __init__(self, models: FluxModelManager, *, gpu: GpuThread, store: ResultStore | None) -> None:
        self._models = models
        self._gpu = gpu
        self._store = store
        self._images = ImageGenerator(PromptEncoder())

    async def run(self, job: object, send: Send | None = None, *, min_interval_s: float = MIN_INTERVAL_S) -> JsonObject:
        """Run one job to its result; `send` carries its progress. Raises nothing but a cancellation."""
        identity = job_id(job)
        progress = Progress(send, min_interval_s=min_interval_s)
        try:
            parsed = parse_job(job, self._parse_context())
            return within_limit(await self._run_image(parsed, progress), identity)
        except FluxError as error:
            log.warning("job refused", extra={"job_id": identity, "code": error.code, "detail": error.field})
            return {"error": error.to_json(identity)}
        except Exception:
            reference = uuid.uuid4().hex[:12]
            log.exception("job failed", extra={"job_id": identity, "code": "internal", "reference": reference})
            unforeseen = Internal(f"something unforeseen broke; send the job again, or report reference {reference}")
            return {"error": unforeseen.to_json(identity)}
        finally:
            await progress.close()

    async def warm(self) -> None:
        """Load the default model before the first job asks for it. Raises ModelUnavailable or OutOfMemory."""
        spec = self._models.default()
        await self._gpu.run(lambda _: self._models.load(spec))

    async def _run_image(self, job: ImageJob, progress: Progress) -> JsonObject:
        began = time.perf_counter()
        progress.stage("queued")
        made = await self._gpu.run(lambda cancellation: self._make(job, progress, cancellation))
        made_at = time.perf_counter()
        progress.stage("encoding")
        model = _described(made.model)
        files = await encode_images(made.generated.images, job, model)
        encoded_at = time.perf_counter()
        progress.stage("uploading")
        images, expires_at = await deliver(files, job, self._store)
        ended = time.perf_counter()

        timings = {
            "total_ms": (ended - began) * 1000,
            "load_ms": made.load_ms,
            "lora_ms": 0.0,
            "text_ms": made.generated.text_ms,
            "denoise_ms": made.generated.denoise_ms,
            "decode_ms": made.generated.decode_ms,
            "encode_ms": (encoded_at - made_at) * 1000,
            "upload_ms": (ended - encoded_at) * 1000,
        }
        log.info("job done", extra={"job_id": job.id, "model": job.model, "ms": round(timings["total_ms"])})
        result: JsonObject = {
            "images": images,
            "seed": job.seed,
            "model": model,
            "parameters": job.parameters(),
            "cached": False,
            "timings": {name: round(ms, 1) for name, ms in timings.items()},
            "warnings": list(job.warnings),
        }
        if job.metadata is not None:
            result["metadata"] = job.metadata
        if expires_at is not None:
            result["expires_at"] = as_utc(expires_at)
        return result

    def _make(self, job: ImageJob, progress: Progress, cancellation: Cancellation) -> Made:
        """On the GPU thread: the model, warmed if it is cold, and the job's pictures."""
        began = time.perf_counter()
        spec = self._models.named(job.model)
        if not self._models.is_warm(spec):
            progress.stage("loading")
        model = self._models.load(spec)
        load_ms = (time.perf_counter() - began) * 1000
        return Made(model, load_ms, self._images.generate(model, job, progress, cancellation))

    def _parse_context(self) -> ParseContext:
        return ParseContext(
            default_model=self._models.default().limits,
            find_model=self._models.find_limits,
            served_models=self._models.served(),
            default_response_format="b64_json" if self._store is None else "url",
            can_return_urls=self._store is not None,
        )


def _described(model: LoadedModel) -> JsonObject:
    return {"id": model.spec.id, "revision": model.revision, "precision": model.precision}
