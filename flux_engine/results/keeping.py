"""What becomes of a job's files beside their delivery, decided once, before they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flux_engine.job.base import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Where the files of a job are kept, and who may have them.

    `must_store`: the client gets links, so a store that fails fails the job. `may_store`: the store has them at least
    for reuse. `is_remembered`: the cache is told of them. `waits_for_retry`: where the store fails, the volume keeps
    them for the job's next try. `is_noted`: where the cache does not answer, the volume notes that they are stored.
    `is_own_only`: what an earlier try left is of use to that very job alone.
    `clears_pending`: once they are stored, no try of a job like it needs what the volume keeps.
    """

    must_store: bool
    may_store: bool
    is_remembered: bool
    waits_for_retry: bool
    is_noted: bool
    is_own_only: bool
    clears_pending: bool

    @classmethod
    def of(cls, job: Job, *, is_own_store: bool) -> Keeping:
        """`is_own_store`: results go to the worker's own store; a client's own bucket may stay away for ever."""
        must_store = job.response_format == "url"
        return cls(
            must_store=must_store,
            may_store=must_store or job.cache,
            is_remembered=True,
            waits_for_retry=must_store and is_own_store,
            is_noted=is_own_store,
            is_own_only=not job.cache,
            clears_pending=is_own_store and job.cache,
        )

    def made_otherwise(self) -> Keeping:
        """The same for files that another plan made than their fingerprint stands for: of use to this job alone."""
        return replace(self, is_remembered=False, waits_for_retry=False)

    def found_pending(self) -> Keeping:
        """The same for files that an earlier try left on the volume: they leave it once they are stored."""
        return replace(self, clears_pending=self.waits_for_retry or self.clears_pending)
