"""What an endpoint serves, as the answer to `op: capabilities`: models, schemas of jobs, limits, LoRAs, version, plan.

Everything comes from the declarations by which jobs are parsed and models are planned, so that it cannot part from
what is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flux_engine import __version__
from flux_engine.ask.estimate import planned_in_short
from flux_engine.inputs.lora_source import SUFFIX
from flux_engine.job.base import MAX_METADATA_BYTES, JsonObject, ParseContext
from flux_engine.job.fields import MAX_LORAS, SIDE_BOUNDS
from flux_engine.job.fingerprint import GENERATION_VERSION
from flux_engine.job.formats import IMAGE_FORMATS, VIDEO_FORMATS
from flux_engine.job.limits import ModelLimits
from flux_engine.job.schema.jobs import Offer, job_schema
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec

OPS: Final = ("capabilities", "estimate")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model and its state on a worker."""

    spec: ModelSpec
    is_default: bool
    is_on_volume: bool
    is_loaded: bool

    @property
    def offer(self) -> Offer:
        names = dict.fromkeys((self.spec.id, self.spec.name, *self.spec.aliases))
        return Offer(
            limits=self.spec.limits,
            names=tuple(names),
            is_default=self.is_default,
            makes_videos=self.spec.makes_videos,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """A LoRA on the volume: what `loras[].path` may say, and its size."""

    name: str
    bytes: int


def volume_loras(folder: Path) -> Iterator[LoraFile]:
    """The LoRAs that a job can name by their place in the folder."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # what was fetched is in a hidden one
        for name in sorted(files):
            path = Path(place) / name
            if not name.lower().endswith(SUFFIX) or name.startswith(".") or not path.is_file():
                continue
            if path.resolve().is_relative_to(folder.resolve()):  # else a job that names it is refused
                yield LoraFile(name=path.relative_to(folder).as_posix(), bytes=path.stat().st_size)


def capabilities(
    models: Sequence[ServedModel],
    context: ParseContext,
    *,
    loras: Iterable[LoraFile],
    limits: Mapping[str, Any],
    plan: Plan | None,
) -> JsonObject:
    """The answer. `limits` are the worker's own settings, `plan` how it runs its default model, where that is known."""
    on_volume = sorted(loras, key=lambda lora: lora.name)
    names = [lora.name for lora in on_volume]
    images = {m.spec.id: job_schema("image", m.offer, context, volume_loras=names) for m in models}
    videos = {
        m.spec.id: job_schema("video", m.offer, context, volume_loras=names) for m in models if m.spec.makes_videos
    }
    return {
        "op": "capabilities",
        "version": {"engine": __version__, "generation": GENERATION_VERSION},
        "ops": list(OPS),
        "default_model": next((model.spec.id for model in models if model.is_default), None),
        "models": [_described(model) for model in models],
        "schemas": {"image": images, "video": videos},
        "limits": _limits(context) | dict(limits),
        "loras": [asdict(lora) for lora in on_volume],
        "plan": planned_in_short(plan) if plan is not None else None,
    }


def _described(model: ServedModel) -> JsonObject:
    spec, limits = model.spec, model.spec.limits
    return {
        "id": spec.id,
        "names": list(model.offer.names),
        "is_default": model.is_default,
        "is_on_volume": model.is_on_volume,
        "is_loaded": model.is_loaded,
        "makes_videos": spec.makes_videos,
        "image_use": limits.image_use,
        "takes_mask": limits.takes_mask,
        "takes_true_cfg": limits.takes_true_cfg,
        "licence": spec.licence,
        "defaults": _defaults(limits),
        "bounds": {name: list(bounds) for name, bounds in limits.bounds().items()},
        "max_pixels": limits.max_pixels,
    }


def _defaults(limits: ModelLimits) -> JsonObject:
    return {
        "num_inference_steps": limits.num_inference_steps,
        "guidance_scale": limits.guidance_scale,
        "true_cfg_scale": limits.true_cfg_scale,
        "max_sequence_length": limits.max_sequence_length,
        "width": limits.side,
        "height": limits.side,
    }


def _limits(context: ParseContext) -> JsonObject:
    response_formats = ["url", "b64_json"] if context.can_return_urls else ["b64_json"]
    return {
        "side": list(SIDE_BOUNDS),
        "loras": MAX_LORAS,
        "metadata_bytes": MAX_METADATA_BYTES,
        "max_video_work": context.max_video_work,
        "image_formats": list(IMAGE_FORMATS),
        "video_formats": list(VIDEO_FORMATS),
        "response_formats": response_formats,
        "default_response_format": context.default_response_format,
    }
