"""One job, start to finish: parse, inputs, reuse, generate, encode, deliver.

`Worker.run` takes the platform's job dictionary and returns a fresh dictionary for the platform: the contract's
result, or `{"error": JSON}`. It never raises an Exception, and is the only place that catches broadly. A cancellation
passes through once the device is free.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from flux_engine.cache.flight import Flight
from flux_engine.cache.manager import CacheManager
from flux_engine.errors import ClientError, DeviceBroken, FluxError, Internal, StorageFailed
from flux_engine.generate.gpu import Cancellation, GpuThread
from flux_engine.generate.image import Generated, ImageGenerator, can_preview
from flux_engine.generate.interruption import interruptible
from flux_engine.generate.video.film import Film, film
from flux_engine.generate.video.generator import VideoGenerator, check_model
from flux_engine.inputs.fetcher import InputFetcher, JobInputs
from flux_engine.job.base import MAX_VIDEO_WORK, Job, JsonObject, ParseContext
from flux_engine.job.fingerprint import ModelIdentity, fingerprint
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job, parse_request
from flux_engine.job.video import VideoJob
from flux_engine.models.manager import FluxModelManager, LoadedModel
from flux_engine.models.spec import ModelSpec
from flux_engine.progress import MIN_INTERVAL_S, Progress, Send
from flux_engine.results.delivery import (
    encode_images,
    handed_out,
    is_within_limit,
    linked_instead,
    made_to_fit,
    video_files,
    within_limit,
)
from flux_engine.results.entry import CacheEntry
from flux_engine.results.pending import KeptResult, KeptResults
from flux_engine.results.result import Clock, Finished, MadeBy, Run, described, result_of
from flux_engine.results.s3_config import store_from_s3_config
from flux_engine.results.store import ResultStore, put_all

NO_PREVIEW: Final = "`preview` has no effect: this GPU would move the model out and in again for each one"
NOT_STORED: Final = "the result could not be stored for reuse"

Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Worker:
    """Runs jobs. One a process; holds the GPU thread, the models, the cache and the store for results."""

    def __init__(
        self,
        models: FluxModelManager,
        *,
        gpu: GpuThread,
        cache: CacheManager,
        store: ResultStore,
        kept: KeptResults,
        inputs: InputFetcher,
        url_expiry_s: int,
        max_video_work: float = MAX_VIDEO_WORK,
    ) -> None:
        self.is_broken = False  # the device is lost: this process should take no further job
        self._models = models
        self._gpu = gpu
        self._cache = cache
        self._store = store
        self._kept = kept
        self._inputs = inputs
        self._url_expiry_s = url_expiry_s
        self._max_video_work = max_video_work
        self._looking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="look")  # one at a time; begins when used
        self._images = ImageGenerator()
        self._videos = VideoGenerator()

    async def run(self, job: object, send: Send | None = None, *, min_interval_s: float = MIN_INTERVAL_S) -> JsonObject:
        """Run one job to its result; `send` carries its progress. Raises nothing but a cancellation."""
        request = parse_request(job)
        identity = request.id
        progress = Progress(send, min_interval_s=min_interval_s)
        try:
            return within_limit(await self._run_in_store(request, progress), identity)
        except DeviceBroken as error:
            self.is_broken = True
            reference = _reference()
            log.exception("device broken", extra={"job_id": identity, "code": error.code, "reference": reference})
            broken = DeviceBroken(f"{error.message}; reference {reference}")
            return {"error": broken.to_json(identity), "refresh_worker": True}
        except ClientError as error:  # its message may quote the job, so the field has to do
            log.warning("job refused", extra={"job_id": identity, "code": error.code, "detail": error.field})
            return {"error": error.to_json(identity)}
        except FluxError as error:
            log.exception("job failed", extra={"job_id": identity, "code": error.code, "detail": error.message})
            return {"error": error.to_json(identity)}
        except Exception:
            reference = _reference()
            log.exception("job failed", extra={"job_id": identity, "code": "internal", "reference": reference})
            unforeseen = Internal(f"something unforeseen broke; send the job again, or report reference {reference}")
            return {"error": unforeseen.to_json(identity)}
        finally:
            await progress.close()

    async def warm(self) -> None:
        """Load the default model before the first job asks for it; where it cannot be, that job will say so."""
        try:
            spec = self._models.served.default()
            await self._identity(spec)
            await self._gpu.run(lambda _: self._models.use(spec, lambda model: None))
        except DeviceBroken as error:
            self.is_broken = True
            log.exception("device broken", extra={"code": error.code})
        except FluxError as error:
            log.exception("not warmed", extra={"code": error.code, "detail": error.message})
        except Exception:
            log.exception("not warmed", extra={"code": "internal"})

    async def close(self) -> None:
        """Leave the cache's server and the store. The GPU thread is its owner's to end."""
        await self._cache.close()
        self._store.close()
        self._looking.shutdown(wait=False)

    async def _run_in_store(self, request: Request, progress: Progress) -> JsonObject:
        store = self._store_of(request)
        try:
            return await self._run(request, store, progress)
        finally:
            if store is not self._store:
                store.close()

    async def _run(self, request: Request, store: ResultStore, progress: Progress) -> JsonObject:
        clock = Clock()
        job = parse_job(request, self._parse_context(store))
        progress.stage("queued")
        spec = self._models.served.named(job.model)
        if isinstance(job, VideoJob):
            check_model(spec)
        model = await self._identity(spec)
        with self._gpu.place() as place:
            if store is not self._store:
                await store.warm()  # a bucket that cannot be used is refused before anything is made for it
            inputs = await self._fetch_inputs(job, progress, clock)
            key = fingerprint(job.parameters(), model=model, inputs=inputs.content(job))
            run = Run(
                job=job,
                inputs=inputs,
                model=model,
                fingerprint=key,
                store=store,
                progress=progress,
                clock=clock,
                place=place,
            )
            return await self._reused_or_made(run)

    async def _reused_or_made(self, run: Run) -> JsonObject:
        job, store, progress, clock = run.job, run.store, run.progress, run.clock
        async with self._cache.flight(
            run.fingerprint,
            job_id=job.id,
            store=store,
            on_progress=progress.relay,
            use_cache=job.cache,
            needs_store=job.response_format == "url",
        ) as flight:
            progress.also_tell(flight.share_progress)
            if flight.hit is not None:
                finished = Finished(entry=flight.hit, model=described(run.model))
            else:
                finished = await self._finish(run, flight)
            with clock.measure("upload"):
                files, expires_at = await handed_out(
                    finished.entry, store, job.response_format, at_hand=finished.at_hand
                )
        log.info("job done", extra={"job_id": job.id, "model": job.model, "ms": clock.total_ms()})
        result = result_of(run, finished, flight, files=files, expires_at=expires_at)
        return await self._fitting(run, finished, result)

    async def _fitting(self, run: Run, finished: Finished, result: JsonObject) -> JsonObject:
        """`result`, or where the platform would not take it, the same in a smaller format, or with links."""
        job, store = run.job, run.store
        fitting = await made_to_fit(result, job) if isinstance(job, ImageJob) else result
        if not store.has_urls or is_within_limit(fitting, job.id):
            return fitting
        await put_all(store, finished.files())  # where `cache: false` kept them out of it
        files, expires_at = await handed_out(finished.entry, store, "url", at_hand={})
        return linked_instead(result, files, expires_at, job_id=job.id)

    async def _identity(self, spec: ModelSpec) -> ModelIdentity:
        """What results of `spec` are made by. The first look at the GPU takes up to seconds, during which the loop goes
        on; and not on the GPU thread, where a hit would wait for the job before it."""
        return await asyncio.get_running_loop().run_in_executor(self._looking, self._models.identity, spec)

    async def _fetch_inputs(self, job: Job, progress: Progress, clock: Clock) -> JobInputs:
        if not job.loras:
            return await self._inputs.fetch(job)
        progress.stage("lora")
        with clock.measure("lora"):
            return await self._inputs.fetch(job)

    async def _finish(self, run: Run, flight: Flight) -> Finished:
        """The job's files, made or kept from an earlier try, and stored."""
        only_of = None if run.job.cache else run.job.id
        kept = await self._kept.find(run.fingerprint, prefix=run.store.prefix, job_id=only_of)
        model, is_as_planned = described(run.model), True
        was_kept = kept is not None
        if kept is None:
            kept, made_by = await self._make(run)
            model = described(made_by.identity) | {"plan": made_by.plan}
            is_as_planned = made_by.identity == run.model
        run.progress.stage("uploading")
        must_store = run.job.response_format == "url"
        if not must_store and not run.job.cache:
            return Finished(entry=kept.entry, model=model, at_hand=kept.data_by_key())
        try:
            with run.clock.measure("upload"):
                await put_all(run.store, kept.files)
        except StorageFailed:
            if must_store:
                if is_as_planned and run.store is self._store:  # a client's own bucket may be away for ever
                    await self._kept.keep(kept.entry, kept.files, job_id=run.job.id)
                raise
            flight.warning = NOT_STORED
        else:
            if is_as_planned:
                await flight.complete(kept.entry)
            if run.store is self._store and (was_kept or run.job.cache):  # else it waits for another job
                await self._kept.drop(run.fingerprint)
        return Finished(entry=kept.entry, model=model, at_hand=kept.data_by_key())

    async def _make(self, run: Run) -> tuple[KeptResult, MadeBy]:
        """Generate and encode."""
        if isinstance(run.job, VideoJob):
            return await self._make_video(run, run.job)
        return await self._make_images(run, run.job)

    async def _make_images(self, run: Run, job: ImageJob) -> tuple[KeptResult, MadeBy]:
        def generate(model: LoadedModel, cancellation: Cancellation) -> Generated:
            pictures = run.inputs.pictures
            return self._images.generate(model, job, run.progress, cancellation, pictures=pictures)

        made, made_by, warnings = await self._on_gpu(run, generate)
        if job.preview and not made_by.can_preview:
            run.said.append(NO_PREVIEW)
        run.clock.spent |= made.spent_ms()
        run.progress.stage("encoding")
        with run.clock.measure("encode"):
            content = run.inputs.content(job)
            files = await encode_images(
                made.images, job, model=described(made_by.identity), prefix=run.store.prefix, content=content
            )
        facts = tuple(file.facts for file in files)
        entry = CacheEntry(fingerprint=run.fingerprint, files=facts, warnings=tuple(warnings))
        return KeptResult(entry, tuple(file.new_file for file in files)), made_by

    async def _make_video(self, run: Run, job: VideoJob) -> tuple[KeptResult, MadeBy]:
        def generate(model: LoadedModel, cancellation: Cancellation) -> Film:
            first_frame = run.inputs.pictures.image
            return film(self._videos, model, job, run.progress, cancellation, first_frame=first_frame)

        made, made_by, warnings = await self._on_gpu(run, generate)
        run.clock.spent |= made.spent_ms()
        video, thumbnail = video_files(made, job, prefix=run.store.prefix)
        entry = CacheEntry(
            fingerprint=run.fingerprint,
            files=(video.facts,),
            thumbnail=thumbnail.facts,
            warnings=tuple(warnings),
        )
        return KeptResult(entry, (video.new_file, thumbnail.new_file)), made_by

    async def _on_gpu(
        self, run: Run, generate: Callable[[LoadedModel, Cancellation], Made]
    ) -> tuple[Made, MadeBy, list[str]]:
        def work(cancellation: Cancellation) -> tuple[Made, MadeBy, list[str]]:
            return self._use_model(run, generate, cancellation)

        return await self._gpu.run(work, place=run.place)

    def _use_model(
        self, run: Run, generate: Callable[[LoadedModel, Cancellation], Made], cancellation: Cancellation
    ) -> tuple[Made, MadeBy, list[str]]:
        """Runs on the GPU thread: loads the model if it is cold, applies the job's LoRAs and calls `generate`. Returns
        its result, what it was made by, and warnings about the LoRAs.

        The model itself stays here: a job that is still being uploaded would keep it from being unloaded.
        """
        began = time.perf_counter()
        spec = self._models.served.named(run.job.model)
        is_cold = not self._models.is_warm(spec)
        if is_cold:
            run.progress.stage("loading")

        def work(model: LoadedModel) -> tuple[Made, MadeBy, list[str]]:
            run.clock.spent["load"] = (time.perf_counter() - began) * 1000
            if is_cold:
                run.clock.cold_start |= model.phases_ms
            with run.clock.measure("lora"):
                scales = (lora.scale for lora in run.job.loras)
                warnings = model.apply_loras(zip(run.inputs.loras, scales, strict=True))
            with interruptible(model, cancellation):
                made = generate(model, cancellation)
            plan = model.tuned.applied.to_dict()
            return made, MadeBy(identity=model.identity, plan=plan, can_preview=can_preview(model)), warnings

        return self._models.use(spec, work)

    def _store_of(self, request: Request) -> ResultStore:
        """The bucket that the job brings along, or the worker's own store. Raises InvalidInput."""
        if request.s3_config is None:
            return self._store
        return store_from_s3_config(request.s3_config, url_expiry_s=self._url_expiry_s)

    def _parse_context(self, store: ResultStore) -> ParseContext:
        return ParseContext(
            default_model=lambda: self._models.served.default().limits,
            find_model=self._models.served.find_limits,
            served_models=self._models.served.ids(),
            default_response_format="url" if store.has_urls else "b64_json",
            can_return_urls=store.has_urls,
            max_video_work=self._max_video_work,
        )


def _reference() -> str:
    """What a client reports and the log holds as well."""
    return uuid.uuid4().hex[:12]
