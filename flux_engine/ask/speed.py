"""How long jobs take, inferred from what jobs took: samples of finished jobs -> seconds of the next one.

A job's time is taken apart into what repeats: the text, each denoising step of each picture, what each finished picture
costs, and the rest. So a job is estimated by others of its size with another number of steps or pictures, and, less
exactly, by others of its model with another size.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.job.work import passes_of, pictures_of, steps_of

Source = Literal["measured", "scaled", "planned"]

KIND: Final = re.compile("image|redraw|video|references[0-9]{1,2}")  # each reference makes a step longer
LOAD: Final = "load"  # the field of loading times


@dataclass(frozen=True, slots=True)
class Shape:
    """What samples are kept by: jobs of one shape take one step in one time."""

    kind: str  # KIND
    width: int
    height: int
    steps: int

    @classmethod
    def of(cls, job: ImageJob | VideoJob) -> Self:
        return cls(_kind(job), job.width, job.height, job.num_inference_steps)

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def field(self) -> str:
        return f"{self.kind}:{self.width}x{self.height}:{self.steps}"

    @classmethod
    def parse(cls, field: str) -> Self | None:
        """The shape that `field` names, or None for a field of something else."""
        kind, _, rest = field.partition(":")
        size, _, steps = rest.partition(":")
        width, _, height = size.partition("x")
        if KIND.fullmatch(kind) is None or not (width.isdigit() and height.isdigit() and steps.isdigit()):
            return None
        return cls(kind, int(width), int(height), int(steps))


def _kind(job: ImageJob | VideoJob) -> str:
    if isinstance(job, VideoJob):
        return "video"
    if job.images is not None:
        return f"references{len(job.images)}"
    return "redraw" if job.image is not None else "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Where one job's seconds went."""

    gpu: str
    text_s: float
    step_s: float  # each pass of each step of each picture
    picture_s: float  # each picture, decoded and encoded
    rest_s: float

    @classmethod
    def of(cls, job: ImageJob | VideoJob, timings: Mapping[str, float], *, gpu: str) -> Self:
        """From a result's `timings`; loading is no part of it."""
        spent = {name.removesuffix("_ms"): ms / 1000 for name, ms in timings.items()}
        pictures = pictures_of(job)
        return cls(
            gpu=gpu,
            text_s=spent["text"],
            step_s=spent["denoise"] / (steps_of(job) * passes_of(job)),
            picture_s=(spent["decode"] + spent["encode"]) / pictures,
            rest_s=spent["lora"] + spent["upload"],
        )

    @classmethod
    def parse(cls, raw: object) -> Self | None:
        """From a row of the measurements, or None for what another version wrote."""
        names = ("text_s", "step_s", "picture_s", "rest_s")
        if not isinstance(raw, Mapping) or not all(isinstance(raw.get(name), int | float) for name in names):
            return None
        return cls(gpu=str(raw.get("gpu", "")), **{name: float(raw[name]) for name in names})


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds of a job, and what they were inferred from."""

    seconds: float
    source: Source
    samples: int


@dataclass(frozen=True, slots=True)
class Speeds:
    """What the jobs of one model took, on one card where that is known."""

    samples: Mapping[Shape, Sequence[Sample]]
    load_s: Sequence[float]

    @classmethod
    def parse(cls, fields: Mapping[str, Sequence[Any]], *, gpu: str | None = None) -> Self:
        """From the fields of a store of measurements; `gpu` leaves out what other cards took."""
        samples: dict[Shape, list[Sample]] = {}
        for name, rows in fields.items():
            shape = Shape.parse(name)
            parsed = [sample for row in rows if (sample := Sample.parse(row)) is not None]
            kept = [sample for sample in parsed if gpu is None or sample.gpu == gpu]
            if shape is not None and kept:
                samples[shape] = kept
        loads = [row for row in fields.get(LOAD, []) if isinstance(row, Mapping)]
        load_s = [row["load_s"] for row in loads if gpu is None or row.get("gpu") == gpu]
        return cls(samples, [float(seconds) for seconds in load_s if isinstance(seconds, int | float)])

    def expected(self, job: ImageJob | VideoJob) -> Expected | None:
        """How long `job` takes on a warm worker; None where no job of its model was measured.

        From jobs of its shape; else of its kind and size; else of its size; else from the sizes around it.
        """
        shape = Shape.of(job)
        alike = (
            self._where(lambda other: other == shape),
            self._where(lambda other: (other.kind, other.pixels) == (shape.kind, shape.pixels)),
            self._where(lambda other: other.pixels == shape.pixels),
        )
        for samples in alike:
            if samples:
                return Expected(_seconds(job, _typical(samples)), "measured", len(samples))
        by_size: dict[int, list[Sample]] = {}
        for other, rows in self.samples.items():
            by_size.setdefault(other.pixels, []).extend(rows)
        if not by_size:
            return None
        sample = _between({size: _typical(samples) for size, samples in by_size.items()}, shape.pixels)
        return Expected(_seconds(job, sample), "scaled", sum(map(len, by_size.values())))

    def loading_s(self) -> float | None:
        return statistics.median(self.load_s) if self.load_s else None

    def _where(self, is_wanted: Callable[[Shape], bool]) -> list[Sample]:
        return [sample for shape, samples in self.samples.items() if is_wanted(shape) for sample in samples]


def _seconds(job: ImageJob | VideoJob, sample: Sample) -> float:
    steps = steps_of(job) * passes_of(job) * sample.step_s
    return sample.text_s + steps + pictures_of(job) * sample.picture_s + sample.rest_s


def _typical(samples: Iterable[Sample]) -> Sample:
    rows = list(samples)
    return Sample(
        gpu=rows[0].gpu,
        text_s=statistics.median(row.text_s for row in rows),
        step_s=statistics.median(row.step_s for row in rows),
        picture_s=statistics.median(row.picture_s for row in rows),
        rest_s=statistics.median(row.rest_s for row in rows),
    )


def _between(by_size: Mapping[int, Sample], pixels: int) -> Sample:
    """What a picture of `pixels` takes: on the line between the sizes around it, or in proportion to the nearest."""
    smaller, larger = [size for size in by_size if size < pixels], [size for size in by_size if size > pixels]
    if not smaller or not larger:
        near = by_size[max(smaller) if smaller else min(larger)]
        share = pixels / (max(smaller) if smaller else min(larger))
        return replace(near, step_s=near.step_s * share, picture_s=near.picture_s * share)
    low, high = max(smaller), min(larger)
    share, first, second = (pixels - low) / (high - low), by_size[low], by_size[high]
    return replace(
        first,
        step_s=first.step_s + (second.step_s - first.step_s) * share,
        picture_s=first.picture_s + (second.picture_s - first.picture_s) * share,
    )
