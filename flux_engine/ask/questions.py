"""Questions: a job's `input` with `op` -> its answer, from a worker's parts, without the GPU's turn or a download.

    if questions.is_asked(request):
        return await questions.answer(request, context, store=store)

Looking at a model's weights and a card's properties blocks, and happens in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from flux_engine.ask.capabilities import OPS, ServedModel, capabilities, volume_loras
from flux_engine.ask.estimate import Planned, Presence, State, estimate
from flux_engine.ask.speed import LOAD, Sample, Shape, Speeds
from flux_engine.cache.manager import CacheManager
from flux_engine.errors import DeviceBroken, FluxError, InvalidInput, ModelUnavailable
from flux_engine.inputs.fetcher import InputFetcher, JobInputs
from flux_engine.inputs.lora_volume import StoredLora
from flux_engine.job.base import JsonObject, ParseContext
from flux_engine.job.fingerprint import fingerprint
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import ModelLimits
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.schema.jobs import prepare
from flux_engine.job.shape import AnyJob, check_references, shaped_like
from flux_engine.job.validation import shown, shown_name
from flux_engine.job.video import VideoJob
from flux_engine.job.written.loras import LoraRequest
from flux_engine.models.beside.depth import DepthModels
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec
from flux_engine.results.store import ResultStore

ASKS: Final = "op"  # the field that makes an input a question
MIN_LOAD_MS: Final = 500.0  # below it the model was warm


class Questions:
    """Answers for one worker."""

    def __init__(
        self,
        models: FluxModelManager,
        *,
        inputs: InputFetcher,
        cache: CacheManager,
        lora_folder: Path,
        depths: DepthModels,
        limits: Mapping[str, Any],
        price_per_hour: float | None = None,
    ) -> None:
        """`limits` are what the worker's settings bound, for the answer to `capabilities`."""
        prepare()
        self._models = models
        self._inputs = inputs
        self._cache = cache
        self._lora_folder = lora_folder
        self._depths = depths
        self._limits = dict(limits)
        self._price_per_hour = price_per_hour

    @staticmethod
    def is_asked(request: Request) -> bool:
        """Whether `request` asks instead of having something made."""
        return request.input is not None and request.input.get(ASKS) is not None

    async def answer(self, request: Request, context: ParseContext, *, store: ResultStore) -> JsonObject:
        """The answer to `request`. Raises InvalidInput, and what the job itself would be refused with."""
        given = dict(request.input or {})
        op = given.pop(ASKS)
        if op == "capabilities":
            extra = next((name for name, value in given.items() if value is not None), None)
            if extra is not None:
                raise InvalidInput(f"`op` `capabilities` takes no `{shown_name(extra)}`", field=shown_name(extra))
            return await asyncio.to_thread(self._capabilities, context)
        if op == "estimate":
            job = parse_job(replace(request, input=given), context)
            return await self._estimate(job, store)
        raise InvalidInput(f"`op` must be one of {', '.join(OPS)}; got {shown(op)}", field=ASKS)

    def note(self, job: ImageJob | VideoJob, timings: Mapping[str, float]) -> None:
        """Keep what a job took that was made here, for the next estimate; of one that was enlarged it is not known how
        much the model did."""
        if isinstance(job, ImageJob) and job.upscale is not None:
            return
        spec = self._models.served.named(job.model)
        gpu = self._models.plan(spec).gpu
        rows = {Shape.of(job).field(): asdict(Sample.of(job, timings, gpu=gpu))}
        if timings["load_ms"] >= MIN_LOAD_MS:
            rows[LOAD] = {"gpu": gpu, "load_s": timings["load_ms"] / 1000}
        self._cache.measurements.note(spec.id, rows)

    # ---------------------------------------------------------------------------------------------- capabilities

    def _capabilities(self, context: ParseContext) -> JsonObject:
        models = list(self._served())
        default = next((model.spec for model in models if model.is_default), None)
        return capabilities(
            models,
            context,
            loras=volume_loras(self._lora_folder),
            limits=self._limits | {"maps_made": ["canny", *(["depth"] if self._depths.find() else [])]},
            plan=self._plan(default) if default is not None else None,
        )

    def _served(self) -> Iterator[ServedModel]:
        served = self._models.served
        default = served.ids()[0]
        for name in served.ids():
            try:
                spec = served.find(name)
            except ModelUnavailable:  # a fine-tune whose kind stands in weights that are not there
                continue
            if spec is not None:
                yield ServedModel(
                    spec=spec,
                    is_default=name == default,
                    is_on_volume=served.has_weights(spec),
                    is_loaded=self._models.is_warm(spec),
                )

    def _plan(self, spec: ModelSpec) -> Plan | None:
        try:
            return self._models.plan(spec)
        except DeviceBroken:
            return None

    # -------------------------------------------------------------------------------------------------- estimate

    async def _estimate(self, job: ImageJob | VideoJob, store: ResultStore) -> JsonObject:
        spec = self._models.served.named(job.model)
        if isinstance(job, VideoJob) and not spec.makes_videos:
            raise InvalidInput(f"{spec.id} makes images only; send a FLUX.1 text-to-image `model`", field="model")
        job = self._models.served.equipped(job)
        found = [await self._looked_for(lora) for lora in job.loras]
        inputs = await self._inputs_here(job)
        if inputs is not None:
            job = _as_made(job, inputs, spec.limits)
            inputs = replace(inputs, loras=tuple(lora for lora in found if isinstance(lora, StoredLora)))
        loras: list[Presence] = ["here" if isinstance(lora, StoredLora) else lora for lora in found]
        planned = await asyncio.to_thread(self._planned, spec)
        state = State(
            is_on_volume=self._models.served.has_weights(spec),
            is_loaded=self._models.is_warm(spec),
            cached=await self._is_cached(job, spec, None if "to_be_fetched" in loras else inputs, store)
            if "missing" not in loras
            else False,
            loras=loras,
            has_pictures=inputs is not None,
        )
        gpu = planned.plan.gpu if planned is not None else None
        speeds = Speeds.parse(await self._cache.measurements.read(spec.id), gpu=gpu)
        return estimate(job, state, speeds=speeds, planned=planned, price_per_hour=self._price_per_hour)

    def _planned(self, spec: ModelSpec) -> Planned | None:
        plan = self._plan(spec)
        if plan is None:
            return None
        return Planned(spec=spec, plan=plan, speed=self._models.speed())

    async def _looked_for(self, lora: LoraRequest) -> StoredLora | Presence:
        try:
            return await self._inputs.lora(lora.path, before_download=_no_download)
        except _WouldFetch:
            return "to_be_fetched"
        except FluxError:
            return "missing"

    async def _inputs_here(self, job: ImageJob | VideoJob) -> JobInputs | None:
        """What the job brings, without its LoRAs; None where a picture would have to be fetched."""
        try:
            return await self._inputs.fetch(replace(job, loras=()), before_download=_no_download)
        except _WouldFetch:
            return None

    async def _is_cached(
        self, job: ImageJob | VideoJob, spec: ModelSpec, inputs: JobInputs | None, store: ResultStore
    ) -> bool | None:
        if not job.cache:
            return False
        if isinstance(job, ImageJob) and job.control is not None:
            return None  # the worker that makes it knows by which ControlNet
        try:
            model = await asyncio.to_thread(self._models.identity, spec)
        except ModelUnavailable:
            return False
        if inputs is None:
            return None
        revision = self._models.served.upsampler_revision(job)
        content = inputs.content(job) | ({} if revision is None else {"upsampler": revision})
        key = fingerprint(job.parameters(), model=model, inputs=content)
        return await self._cache.find_stored(key, store=store) is not None


def _as_made(job: AnyJob, inputs: JobInputs, limits: ModelLimits) -> AnyJob:
    """`job` in the shape of its pictures, with what is to be said of them. Raises InvalidInput."""
    pictures = inputs.pictures
    if limits.image_use == "reference":
        check_references(pictures.looked_at())
    shaped = shaped_like(job, pictures.shape, limits, painted=pictures.painted)
    return replace(shaped, warnings=(*shaped.warnings, *inputs.warnings))


class _WouldFetch(Exception):
    """An input is not here, and is not fetched for a question."""


def _no_download() -> NoReturn:
    raise _WouldFetch
