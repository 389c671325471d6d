"""The prompt as the model reads it: as it was sent, written out by the model's upsampler, or with a table of boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.job.image import ImageJob
    from flux_engine.models.loaded import LoadedModel


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """What the model reads; `enhanced` is that too where the upsampler wrote it."""

    text: str
    enhanced: str | None = None


def read_prompt(
    model: LoadedModel, job: ImageJob, references: Sequence[Image], *, check: Callable[[], None]
) -> ReadPrompt:
    """The prompt of `job`; `check` raises where the job was cancelled."""
    boxes = _rows(job, has_references=bool(references))
    if job.enhance_prompt and model.upsampler is not None:
        text = model.upsampler.write(job.prompt, images=references, boxes=boxes, seed=job.seed, check=check)
        return ReadPrompt(text, enhanced=text)
    return ReadPrompt(_with_table(job.prompt, boxes) if boxes else job.prompt)


def _rows(job: ImageJob, *, has_references: bool) -> list[dict[str, Any]]:
    """The boxes as diffusers takes them; beside references each is something that is added to them."""
    rows: list[dict[str, Any]] = []
    for number, box in enumerate(job.boxes or (), 1):
        edges = [box.y, box.x, min(1.0, box.y + box.height), min(1.0, box.x + box.width)]
        place: dict[str, Any] = {"from": "target", "tgt_bbox": edges} if has_references else {"bbox": edges}
        rows.append({"id": f"obj_{number}", **place, "desc": box.prompt})
    return rows


def _with_table(prompt: str, boxes: list[dict[str, Any]]) -> str:
    """`prompt` with what stands in the boxes, each cited by its id, and the table that FLUX.3 was trained on."""
    from diffusers.modular_pipelines.flux3.prompt_upsampler import boxes_to_canvas

    rows = boxes_to_canvas(boxes)
    cited = ", ".join(f"{row['desc']} <{row['id']}>" for row in rows)
    return f"{prompt.rstrip(' .')}, with {cited}. {json.dumps(rows, ensure_ascii=False)}"
