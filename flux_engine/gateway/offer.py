"""What this endpoint serves, as its workers tell it: how a job is parsed and how its fingerprint is made, without one.

Until a worker has told, the catalogue holds, with FLUX_MODEL as the default model.
"""

from __future__ import annotations

import time
from typing import Final

from flux_engine.cache.notices import Notices, Offer
from flux_engine.errors import ModelUnavailable
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.job.base import ParseContext
from flux_engine.job.limits import ModelLimits
from flux_engine.models import catalog

FRESH_S: Final = 5.0


class Offers:
    """The current offer, looked up at most every five seconds."""

    def __init__(self, notices: Notices, settings: GatewaySettings) -> None:
        self.notices = notices
        self._default = settings.shared.flux_model or catalog.DEFAULT_ON_GPU
        self._max_video_work = settings.shared.max_video_work
        self._offer: Offer | None = None
        self._asked_at = float("-inf")

    async def context(self) -> ParseContext:
        """How a job is parsed here: as by a worker, but that results are always handed out by URL."""
        offer = await self._current()
        told = {limits.id.casefold(): limits for limits in offer.models} if offer is not None else {}
        default = offer.default_model if offer is not None else self._default

        def find(name: str) -> ModelLimits | None:
            spec = catalog.find(name)
            known = told.get(name.casefold()) or (told.get(spec.id.casefold()) if spec is not None else None)
            if known is not None or offer is not None:
                return known
            return spec.limits if spec is not None else None

        def find_default() -> ModelLimits:
            limits = find(default)
            if limits is None:
                raise ModelUnavailable("no worker has said what it serves yet; name a `model` of the catalogue")
            return limits

        served = tuple(limits.id for limits in offer.models) if offer is not None else _catalogued(default)
        return ParseContext(
            default_model=find_default,
            find_model=find,
            served_models=served,
            default_response_format="url",
            can_return_urls=True,
            max_video_work=offer.max_video_work if offer is not None else self._max_video_work,
        )

    async def is_known(self) -> bool:
        """Whether a worker has told what it serves."""
        return await self._current() is not None

    async def has_urls(self) -> bool:
        """Whether workers can hand results out as links."""
        offer = await self._current()
        return offer is not None and offer.has_urls

    async def marks(self) -> str | None:
        """How workers mark files now; None where none has told."""
        offer = await self._current()
        return offer.marks or None if offer is not None else None

    async def filter(self) -> str | None:
        """The content filter of the workers, empty where they have none; None where no worker has told."""
        offer = await self._current()
        return offer.filter if offer is not None else None

    async def _current(self) -> Offer | None:
        if self._offer is None or time.monotonic() - self._asked_at > FRESH_S:
            self._offer = await self.notices.current_offer() or self._offer
            self._asked_at = time.monotonic()
        return self._offer


def _catalogued(default: str) -> tuple[str, ...]:
    spec = catalog.find(default)
    first = spec.id if spec is not None else default
    return tuple(dict.fromkeys([first, *(spec.id for spec in catalog.CATALOG)]))
