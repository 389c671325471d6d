"""What is served and what a job would take, without a worker: from the offer, the measurements and the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from flux_engine.ask.capabilities import ServedModel, capabilities, volume_loras
from flux_engine.ask.estimate import State, estimate
from flux_engine.ask.speed import Speeds
from flux_engine.cache.manager import CacheManager
from flux_engine.errors import FluxError
from flux_engine.gateway.offer import Offers
from flux_engine.gateway.problems import Refused
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.tasks.hits import Hits
from flux_engine.job.base import JsonObject
from flux_engine.job.parse import Request, parse_job
from flux_engine.models import catalog


class Asking:
    """For one event loop."""

    def __init__(self, offers: Offers, hits: Hits, cache: CacheManager, settings: GatewaySettings) -> None:
        self._offers = offers
        self._hits = hits
        self._cache = cache
        self._settings = settings

    async def capabilities(self) -> JsonObject:
        """Models, JSON Schema of their jobs, limits, and the LoRAs of a volume that the gateway sees."""
        context = await self._offers.context()
        default = context.default_model().id
        found = [spec for name in context.served_models if (spec := catalog.find(name)) is not None]
        models = [
            ServedModel(spec=spec, is_default=spec.id == default, is_on_volume=spec.id == default, is_loaded=False)
            for spec in found
        ]
        loras = await asyncio.to_thread(lambda: list(volume_loras(self._settings.shared.model_volume / "loras")))
        return await asyncio.to_thread(capabilities, models, context, loras=loras, limits={}, plan=None)

    async def estimate(self, body: Mapping[str, Any]) -> JsonObject:
        """What the job of `body` would take, from what such jobs took. Raises Refused."""
        context = await self._offers.context()
        try:
            job = await asyncio.to_thread(parse_job, Request(id="estimate", input=body), context)
        except FluxError as error:
            raise Refused.of(error) from None
        known = not job.names_content  # else the content of what it names is not known here
        state = State(
            is_on_volume=True,
            is_loaded=False,
            cached=await self._hits.find(job) is not None if known else None,
            loras=["to_be_fetched"] * len(job.loras),
            has_pictures=not job.sources(),
        )
        speeds = Speeds.parse(await self._cache.measurements.read(job.model), gpu=None)
        price = self._settings.shared.gpu_price_per_hour
        return estimate(job, state, speeds=speeds, planned=None, price_per_hour=price)
