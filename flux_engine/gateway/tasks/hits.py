"""Finished before: a task that the cache answers without a worker awake.

A fingerprint needs the content of what a job names. A job with LoRAs, pictures or an upscaler therefore has none here
and is left to a worker, which looks once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from flux_engine.cache.manager import CacheManager
from flux_engine.cache.notices import Notices
from flux_engine.errors import FluxError
from flux_engine.gateway.offer import Offers
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.gateway.tasks.reports import told_by
from flux_engine.gateway.tasks.results import Adopted, Results, files_json
from flux_engine.job.fingerprint import ModelIdentity, fingerprint
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.video import VideoJob
from flux_engine.media.marks.marker import UNMARKED
from flux_engine.results.entry import CacheEntry

Job = ImageJob | VideoJob


class Hits:
    """See the module. A cache that does not answer has nothing."""

    def __init__(
        self,
        cache: CacheManager,
        notices: Notices,
        *,
        offers: Offers,
        results: Results,
        gpu_price_per_hour: float | None = None,
    ) -> None:
        self._cache = cache
        self._offers = offers
        self._notices = notices
        self._results = results
        self._usage = {"work": 0, "gpu_seconds": 0} | ({} if gpu_price_per_hour is None else {"cost_usd": 0.0})

    async def find(self, job: Job) -> Ending | None:
        """How `job` ends at once, where it was finished before."""
        if not job.cache:
            return None
        marks = await self._offers.marks()
        for identity, key in await self._fingerprints(job):
            entry = await self._cache.find(key, store=self._results.store)
            if entry is not None and marks not in (None, entry.marks):
                continue  # PROVENANCE has changed: a worker marks the files anew, without making them
            if entry is not None and await self._results.has(entry):
                return _ending(job, identity, entry, usage=self._usage)
        return None

    async def remember(self, task: Task, job_input: Mapping[str, Any], adopted: Adopted) -> None:
        """Keep a result that has just come, so that the next task like it is a hit."""
        with suppress(FluxError):
            context = await self._offers.context()
            job = await asyncio.to_thread(parse_job, Request(id=task.id, input=job_input), context)
            made_by = adopted.result.get("model")
            keys = [key for identity, key in await self._fingerprints(job) if _is_made_by(made_by, identity)]
            told = await self._cache.task_status(task.id)
            made = told.result if told is not None else None  # the worker's own entry
            if made is not None and made.fingerprint not in keys:
                return  # it depends on what is not known here, such as the prompt's upsampler
            if (
                job.cache and len(keys) == 1 and not adopted.result.get("withheld")
            ):  # with two ways to run the model, a result does not say which made it
                entry = CacheEntry(
                    fingerprint=keys[0],
                    files=adopted.files,
                    thumbnail=adopted.thumbnail,
                    enhanced_prompt=adopted.result.get("enhanced_prompt"),
                    warnings=_warnings(job, adopted, made),
                    marks=await self._offers.marks() or UNMARKED,
                )
                await self._cache.remember(entry, store=self._results.store)

    async def _fingerprints(self, job: Job) -> list[tuple[ModelIdentity, str]]:
        if job.names_content:
            return []
        parameters = job.parameters()
        content_filter = await self._offers.filter()
        identities = [  # an entry that another filter let through, or none, is no hit
            identity
            for identity in await self._notices.identities(job.model)
            if content_filter in (None, identity.filter)
        ]
        return [(identity, fingerprint(parameters, model=identity)) for identity in identities]


def _warnings(job: Job, adopted: Adopted, made: CacheEntry | None) -> tuple[str, ...]:
    """What is to be said of the files to whoever asks for them again. `made` knows it, unless the files came in another
    format than the worker kept them in; what follows from the request itself, parsing it says."""
    if made is not None and [file.sha256 for file in made.files] == [file.sha256 for file in adopted.files]:
        return made.warnings
    return tuple(str(said) for said in adopted.result.get("warnings", ()) if said not in job.warnings)


def _is_made_by(described: object, identity: ModelIdentity) -> bool:
    """Whether a result's `model` is that of `identity`."""
    if not isinstance(described, Mapping):
        return False
    return all(described.get(name) == getattr(identity, name) for name in ("id", "revision", "precision"))


def _ending(job: Job, identity: ModelIdentity, entry: CacheEntry, *, usage: Mapping[str, Any]) -> Ending:
    result = {
        "seed": job.seed,
        "model": {"id": identity.id, "revision": identity.revision, "precision": identity.precision},
        "parameters": job.parameters(),
        "timings": {},
        "usage": dict(usage),
        **told_by(entry),
    }
    return Ending(
        status="completed",
        result=result,
        files=files_json(entry.files, entry.thumbnail),
        work_used=0.0,
        cached=True,
        warnings=entry.warnings,
        fingerprint=entry.fingerprint,
    )
