"""What the content filter lets through: pictures one by one, films by sampled frames.

It stands between the pixels and everything that leaves the GPU thread: what is withheld is never encoded, stored, shown
as a preview or made into a thumbnail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flux_engine.errors import ContentFiltered
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.models.beside.content_filter import ContentFilter, Verdict
from flux_engine.results.entry import Withheld

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.media.video import Frame

NO_PREVIEW: Final = "`preview` has no effect: a content filter looks at finished pictures only"
SAMPLES_PER_S: Final = 2.0  # frames of a film that are looked at; the first and the last always are

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Screened:
    """The pictures that may leave, with their seeds, and what is said of the others."""

    pictures: tuple[Image, ...]
    seeds: tuple[int, ...]
    withheld: tuple[Withheld, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"image {each.index} (seed {each.seed}) was withheld by the content filter: {each.label} {each.score:.2f}"
            for each in self.withheld
        )


def screened(pictures: Sequence[Image], job: ImageJob, content_filter: ContentFilter | None) -> Screened:
    """The pictures of `job` that the filter lets through. Raises ContentFiltered where it lets none through."""
    if content_filter is None:
        return Screened(tuple(pictures), tuple(job.seeds()))
    kept: list[tuple[Image, int]] = []
    withheld: list[Withheld] = []
    for index, (picture, seed) in enumerate(zip(pictures, job.seeds(), strict=True)):
        verdict = content_filter.judge(picture)
        if verdict.is_withheld:
            withheld.append(Withheld(index=index, seed=seed, label=verdict.label, score=round(verdict.score, 4)))
        else:
            kept.append((picture, seed))
    if withheld:
        log.warning("pictures withheld", extra={"detail": f"{len(withheld)} of {len(pictures)}"})
    if not kept:
        what = "the picture was" if len(pictures) == 1 else f"all {len(pictures)} pictures were"
        worst = max(withheld, key=lambda each: each.score)
        raise ContentFiltered(
            f"{what} withheld by this endpoint's content filter ({worst.label} {worst.score:.2f}); "
            "change the prompt or the seed"
        )
    return Screened(tuple(p for p, _ in kept), tuple(seed for _, seed in kept), tuple(withheld))


def screened_frames(frames: Iterator[Frame], job: VideoJob, content_filter: ContentFilter | None) -> Iterator[Frame]:
    """`frames` as they come; a sampled one is looked at before it is handed on. Raises ContentFiltered at the first
    that is withheld: nothing of the film leaves then."""
    if content_filter is None:
        yield from frames
        return
    is_looked_at = _sampled(job)
    for index, frame in enumerate(frames):
        if is_looked_at(index):
            from PIL import Image as Pillow

            verdict = content_filter.judge(Pillow.fromarray(frame))
            if verdict.is_withheld:
                raise _withheld(index, verdict)
        yield frame


def _sampled(job: VideoJob) -> Callable[[int], bool]:
    made_per_s = job.fps * job.frames_made / job.num_frames
    every = max(1, round(made_per_s / SAMPLES_PER_S))
    return lambda index: index % every == 0 or index == job.frames_made - 1


def _withheld(index: int, verdict: Verdict) -> ContentFiltered:
    log.warning("film withheld", extra={"detail": f"at frame {index}"})
    return ContentFiltered(
        f"the video was withheld by this endpoint's content filter (frame {index}: {verdict}); "
        "change the prompt or the seed"
    )
