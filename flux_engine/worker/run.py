"""One job on its way: what belongs to it alone, and what follows from that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from flux_engine.cache.flight import Lookup
from flux_engine.generate.generator import Made
from flux_engine.generate.turns import Turn
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.media.marks.marker import Stamp
from flux_engine.media.marks.statement import Ingredient, Statement
from flux_engine.progress import Progress
from flux_engine.results.files import Origin, ResultFiles, picture_files, video_files
from flux_engine.results.keeping import Keeping
from flux_engine.results.result import Finished, described
from flux_engine.results.store import ResultStore
from flux_engine.timings import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job on its way, with everything that belongs to it alone."""

    job: ImageJob | VideoJob
    inputs: JobInputs
    model: ModelIdentity  # by the plan; a leaner one makes it where memory runs out
    fingerprint: str
    stamp: Stamp
    store: ResultStore
    keeping: Keeping
    progress: Progress
    clock: Clock
    turn: Turn

    def lookup(self) -> Lookup:
        return Lookup(
            self.fingerprint,
            job_id=self.job.id,
            store=self.store,
            use_cache=self.job.cache,
            needs_store=self.keeping.must_store,
            on_progress=self.progress.relay,
            before_waiting=self.turn.give_up,
        )

    def finished(self, files: ResultFiles, made: Made | None = None) -> Finished:
        """The job with its `files`, described by what was `made` now, or by the plan where they were there before."""
        marks = self.stamp.marker.notes(self.job.output_format)
        if made is None:
            return Finished(files=files, model=described(self.model), notes=(*self.inputs.warnings, *marks))
        model = described(made.identity) | {"plan": made.plan}
        return Finished(files=files, model=model, notes=(*self.inputs.warnings, *made.notes, *marks))

    async def encoded(self, made: Made) -> ResultFiles:
        """What was made, as files. A video was encoded while its frames were made."""
        origin = Origin(
            fingerprint=self.fingerprint,
            model=described(made.identity),
            content=self.inputs.content(self.job),
            prefix=self.store.prefix,
            stamp=self.stamp,
            enhanced_prompt=made.enhanced_prompt,
            seeds=made.seeds,
            withheld=made.withheld,
            warnings=made.warnings,
        )
        if isinstance(self.job, VideoJob):
            with self.clock.measure("encode"):
                return await asyncio.to_thread(video_files, made.video, made.thumbnail, self.job, origin)
        self.progress.stage("encoding")
        with self.clock.measure("encode"):
            return await picture_files(made.pictures, self.job, origin)


def statement_of(job: ImageJob | VideoJob, model: ModelIdentity, inputs: JobInputs) -> Statement:
    """What the marks in the files of `job` say."""
    return Statement(
        model=model.id,
        revision=model.revision,
        is_composite=bool(job.sources()),
        prompt=job.prompt,
        ingredients=tuple(Ingredient(field=name, data=data) for name, data in inputs.files.items() if name != "mask"),
    )
