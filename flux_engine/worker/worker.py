"""One job, start to finish: parse, inputs, reuse, generate, encode, deliver.

`Worker.run` takes the platform's job dictionary and returns a fresh dictionary for the platform: the contract's
result, or `{"error": JSON}`. It never raises an Exception, and is the only place that catches broadly. A cancellation
passes through once the device is free.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Final

from flux_engine.ask.questions import Questions
from flux_engine.cache.flight import Flight, are_stored
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.notices import Offer
from flux_engine.errors import ClientError, DeviceBroken, FluxError, Internal, ModelUnavailable, StorageFailed
from flux_engine.generate.generator import Generator
from flux_engine.generate.turns import Turn
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.job.base import MAX_VIDEO_WORK, JsonObject, ParseContext
from flux_engine.job.fingerprint import ModelIdentity, fingerprint
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job, parse_request
from flux_engine.job.shape import check_references, shaped_like
from flux_engine.job.video import VideoJob
from flux_engine.logs import about_job, about_request
from flux_engine.media.marks.marker import UNMARKED_FILES, Marker, Stamp
from flux_engine.models.served import ServedModels
from flux_engine.openai.call import OpenAICall, Stream
from flux_engine.progress import MIN_INTERVAL_S, Progress, Send
from flux_engine.results.delivery import delivered
from flux_engine.results.entry import CacheEntry
from flux_engine.results.files import ResultFiles, remarked
from flux_engine.results.keeping import Keeping
from flux_engine.results.limit import fitted
from flux_engine.results.pending import PendingResults
from flux_engine.results.result import Finished, Reuse, account_of, result_of
from flux_engine.results.s3_config import OpenBucket, store_from_s3_config
from flux_engine.results.store import ResultStore, put_all
from flux_engine.timings import Clock
from flux_engine.worker.run import Run, statement_of

NOT_STORED: Final = "the result could not be stored for reuse"

log = logging.getLogger(__name__)


class Worker:
    """Runs jobs. One a process; holds the generator, the cache and the store for results."""

    def __init__(
        self,
        generator: Generator,
        *,
        served: ServedModels,
        cache: CacheManager,
        store: ResultStore,
        pending: PendingResults,
        inputs: InputFetcher,
        questions: Questions,
        url_expiry_s: int,
        marker: Marker = UNMARKED_FILES,
        max_video_work: float = MAX_VIDEO_WORK,
        gpu_price_per_hour: float | None = None,
        open_bucket: OpenBucket = store_from_s3_config,
    ) -> None:
        self.is_broken = False  # the device is lost: this process should take no further job
        self._generator = generator
        self._served = served
        self._cache = cache
        self._store = store
        self._pending = pending
        self._inputs = inputs
        self._questions = questions
        self._marker = marker
        self._url_expiry_s = url_expiry_s
        self._max_video_work = max_video_work
        self._gpu_price_per_hour = gpu_price_per_hour
        self._open_bucket = open_bucket

    async def run(
        self,
        raw: object,
        send: Send | None = None,
        *,
        stream: Stream | None = None,
        min_interval_s: float = MIN_INTERVAL_S,
        on_made: Callable[[], None] = lambda: None,
    ) -> JsonObject:
        """Run one job to its result; `send` carries its progress, and `stream` the events of a streamed OpenAI request.
        `on_made` is called once the GPU has done with it.

        Raises nothing but a cancellation.
        """
        request = parse_request(raw)
        call = OpenAICall.of(request, stream)
        open_progress = partial(Progress, min_interval_s=min_interval_s, on_made=on_made)
        if call is None:
            return await self._answer(request, send, open_progress)
        answer = await self._answer(request, call.listening(send), open_progress, call=call)
        return await call.failed(answer) if "error" in answer else answer

    async def warm(self) -> None:
        """Load the default model before the first job asks for it; where it cannot be loaded, that job will say so."""
        try:
            await self._tell(await self._generator.warm())
        except DeviceBroken as error:
            self.is_broken = True
            log.exception("device broken", extra={"code": error.code})
        except Exception as error:
            code, detail = (error.code, error.message) if isinstance(error, FluxError) else (Internal.code, None)
            log.exception("not warmed", extra={"code": code, "detail": detail})

    async def close(self) -> None:
        """Leave the cache's server and the store. The GPU thread is its owner's to end."""
        await self._cache.close()
        self._store.close()
        self._generator.close()

    async def _answer(
        self,
        request: Request,
        send: Send | None,
        open_progress: Callable[[Send | None], Progress],
        *,
        call: OpenAICall | None = None,
    ) -> JsonObject:
        """The result of `request`, or its error: the boundary around one job."""
        with about_job(request.id), about_request(*request.origin):
            if request.task is not None:
                send = self._cache.notices.sender(request.id, send)
            progress = open_progress(send)
            try:
                return await (self._called(call, progress) if call is not None else self._in_store(request, progress))
            except ClientError as error:
                # The field alone: the message may quote the prompt.
                log.warning("job refused", extra={"code": error.code, "detail": error.field})
                return {"error": error.to_json(request.id)}
            except DeviceBroken as error:
                self.is_broken = True
                reference = _reference()
                log.exception("device broken", extra={"code": error.code, "reference": reference})
                broken = DeviceBroken(f"{error.message}; reference {reference}")
                return {"error": broken.to_json(request.id), "refresh_worker": True}
            except FluxError as error:
                log.exception("job failed", extra={"code": error.code, "detail": error.message})
                return {"error": error.to_json(request.id)}
            except Exception:
                reference = _reference()
                log.exception("job failed", extra={"code": Internal.code, "reference": reference})
                message = f"something unforeseen broke; send the job again, or report reference {reference}"
                return {"error": Internal(message).to_json(request.id)}
            except asyncio.CancelledError:
                log.info("job cancelled")
                raise
            finally:
                await progress.close()
                if request.task is not None:
                    await self._cache.notices.ended(request.id)

    async def _called(self, call: OpenAICall, progress: Progress) -> JsonObject:
        """What OpenAI's API answers to `call`."""
        if call.asks_for_models:
            return call.models(self._served.ids())
        request = await call.as_job(self._parse_context(self._store))
        return await call.answered(await self._in_store(request, progress))

    async def _in_store(self, request: Request, progress: Progress) -> JsonObject:
        """The result of `request`, in the bucket that it brings along or in the worker's own store."""
        if request.s3_config is None:
            return await self._result(request, self._store, progress)
        store = self._open_bucket(request.s3_config, url_expiry_s=self._url_expiry_s)
        try:
            return await self._result(request, store, progress)
        finally:
            store.close()

    async def _result(self, request: Request, store: ResultStore, progress: Progress) -> JsonObject:
        clock, context = Clock(), self._parse_context(store)
        if self._questions.is_asked(request):
            return await self._questions.answer(request, context, store=store)
        job = parse_job(request, context)  # 1 parse
        progress.stage("queued")
        with self._generator.turn() as turn:
            run = await self._prepared(job, store, progress, clock, turn)  # 2 inputs
            job = run.job  # now in the shape of its picture
            async with self._cache.flight(run.lookup()) as flight:  # 3 reuse
                if job.cache:  # otherwise no twin waits for it
                    progress.also_tell(flight.share_progress)
                if flight.hit is not None:
                    finished = run.finished(await self._reused(run, flight, flight.hit))
                else:
                    finished = await self._finished(run, flight)  # 4 generate, 5 encode
                with clock.measure("upload"):
                    delivery = await delivered(finished.files, store, job.response_format)  # 6 deliver
        reuse = Reuse(cached=flight.hit is not None, warning=flight.warning)
        account = account_of(job, finished, clock, reuse=reuse, gpu_price_per_hour=self._gpu_price_per_hour)
        result = await fitted(result_of(job, delivery, account), finished.files, job, store)
        if clock.gpu_s:
            self._questions.note(job, account.timings)
        answer = result.to_json() if result.is_small() else await asyncio.to_thread(result.to_json)
        said = {"model": job.model, "ms": clock.total_ms(), "detail": "cached" if reuse.cached else None}
        log.info("job done", extra=said)
        return answer

    async def _prepared(
        self, job: ImageJob | VideoJob, store: ResultStore, progress: Progress, clock: Clock, turn: Turn
    ) -> Run:
        """The job with its inputs, known by its fingerprint."""
        job = self._served.equipped(job)
        model = await self._generator.identity(job)
        await self._tell(model)
        is_own_store = store is self._store
        if not is_own_store:
            turn.give_up()  # a client's bucket may be slow
            await store.warm()  # one that cannot be used is refused before anything is made for it
        if job.loras:
            progress.stage("lora")
        with clock.measure("lora") if job.loras else nullcontext():
            inputs = await self._inputs.fetch(job, before_download=turn.give_up)
        pictures, limits = inputs.pictures, self._served.named(job.model).limits
        if limits.image_use == "reference":
            check_references(pictures.looked_at())
        job = shaped_like(job, pictures.shape, limits, painted=pictures.painted)
        revision = self._served.upsampler_revision(job)
        beside = self._generator.content(job) | ({} if revision is None else {"upsampler": revision})
        stamp = Stamp(self._marker, statement_of(job, model, inputs))
        progress.preview_xmp = stamp.preview_xmp()
        return Run(
            job=job,
            inputs=inputs,
            model=model,
            fingerprint=fingerprint(job.parameters(), model=model, inputs=inputs.content(job) | beside),
            stamp=stamp,
            store=store,
            keeping=Keeping.of(job, is_own_store=is_own_store),
            progress=progress,
            clock=clock,
            turn=turn,
        )

    async def _reused(self, run: Run, flight: Flight, hit: CacheEntry) -> ResultFiles:
        """The files of `hit`, marked as this worker marks: PROVENANCE may have changed since they were made."""
        with run.clock.measure("encode"):
            files = await remarked(ResultFiles(hit), run.stamp, run.store)
        if files.at_hand and run.keeping.may_store:
            await self._keep(run, flight, files, run.keeping)
        return files

    async def _finished(self, run: Run, flight: Flight) -> Finished:
        """The job's files, made now or left by an earlier try, and kept where they should be."""
        left = await self._left(run)
        if left is not None:
            finished, keeping = run.finished(left), run.keeping.found_pending()
        else:
            job, progress, clock = run.job, run.progress, run.clock
            made = await self._generator.make(job, run.inputs, progress=progress, clock=clock, turn=run.turn)
            progress.made()
            log.debug("result made")
            finished = run.finished(await run.encoded(made), made)
            keeping = run.keeping if made.identity == run.model else run.keeping.made_otherwise()
        run.progress.stage("uploading")
        if keeping.may_store:
            await self._keep(run, flight, finished.files, keeping)
        return finished

    async def _left(self, run: Run) -> ResultFiles | None:
        """The files that an earlier try of the job left on the volume, or noted there to be stored. Raises
        StorageFailed."""
        only_of = run.job.id if run.keeping.is_own_only else None
        left = await self._pending.find(run.fingerprint, prefix=run.store.prefix, job_id=only_of)
        if left is None:
            return None
        run.turn.give_up()
        try:
            if left.at_hand or await are_stored(left.entry, run.store):
                return await remarked(left, run.stamp, run.store)
        except StorageFailed:
            if run.keeping.must_store:
                raise
        return None

    async def _keep(self, run: Run, flight: Flight, files: ResultFiles, keeping: Keeping) -> None:
        """Store `files` and remember them, or leave them or a note for the job's next try. Raises StorageFailed."""
        try:
            with run.clock.measure("upload"):
                await put_all(run.store, files.at_hand)
        except StorageFailed:
            if keeping.waits_for_retry:
                await self._pending.keep(files, job_id=run.job.id)
            if keeping.must_store:
                raise
            flight.warning = NOT_STORED
            return
        if keeping.is_remembered and not await flight.complete(files.entry) and keeping.is_noted:
            await self._pending.note(files.entry, job_id=run.job.id)
        elif keeping.clears_pending:
            await self._pending.drop(run.fingerprint)

    async def _tell(self, model: ModelIdentity) -> None:
        """Let a gateway know what this worker serves, and by what it makes results of `model`."""
        served = self._served
        await self._cache.notices.makes(model)
        with suppress(ModelUnavailable):  # the default model may be missing where another is served
            offer = Offer(
                default_model=served.default().id,
                models=tuple(limits for name in served.ids() if (limits := served.find_limits(name)) is not None),
                has_urls=self._store.has_urls,
                max_video_work=self._max_video_work,
                marks=self._marker.id,
                filter=model.filter,
            )
            await self._cache.notices.offer(offer)

    def _parse_context(self, store: ResultStore) -> ParseContext:
        return ParseContext(
            default_model=lambda: self._served.default().limits,
            find_model=self._served.find_limits,
            served_models=self._served.ids(),
            default_response_format="url" if store.has_urls else "b64_json",
            can_return_urls=store.has_urls,
            max_video_work=self._max_video_work,
        )


def _reference() -> str:
    """What a client reports and the log holds as well."""
    return uuid.uuid4().hex[:12]
