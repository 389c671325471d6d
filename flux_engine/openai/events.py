"""The events of a streamed request: partial pictures from a job's previews, then each finished picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flux_engine.job.base import JsonObject
from flux_engine.openai.answer import output_format, usage_of
from flux_engine.openai.request import Asked

PREVIEW_FORMAT: Final = "webp"


class PartialImages:
    """Picks as many previews as were asked for, spread over the steps.

    partials = PartialImages(asked, size="1024x1024")
    event = partials.event(update, created=...)     # for each progress update; mostly None
    """

    def __init__(self, asked: Asked, *, size: str) -> None:
        self._wishes = asked.wishes
        self._size = size
        self._sent = 0

    def event(self, update: Mapping[str, Any], *, created: int) -> JsonObject | None:
        """The event that `update`, one of a job's progress, is due for. A job that is quick has fewer than asked."""
        preview = update.get("preview")
        if not isinstance(preview, str) or not self._is_due(update):
            return None
        index, self._sent = self._sent, self._sent + 1
        return {
            "type": f"{self._wishes.kind}.partial_image",
            "b64_json": preview.partition(",")[2],
            "created_at": created,
            "size": self._size,
            "quality": self._wishes.quality,
            "background": "opaque",
            "output_format": PREVIEW_FORMAT,
            "partial_image_index": index,
        }

    def _is_due(self, update: Mapping[str, Any]) -> bool:
        step, total = update.get("step", 0), update.get("total_steps") or 1
        return self._sent < self._wishes.partial_images and step / total >= self._sent / (
            self._wishes.partial_images + 1
        )


def completed_events(result: Mapping[str, Any], asked: Asked, *, created: int) -> Iterator[JsonObject]:
    """One event for each picture of a result that holds them as `b64_json`; what the job used stands in the last."""
    images = result["images"]
    for number, image in enumerate(images, start=1):
        event: JsonObject = {
            "type": f"{asked.wishes.kind}.completed",
            "b64_json": image["b64_json"],
            "created_at": created,
            "size": f"{image['width']}x{image['height']}",
            "quality": asked.wishes.quality,
            "background": "opaque",
            "output_format": output_format(result),
            "usage": usage_of(result if number == len(images) else {}),
            "seed": image["seed"],
            "warnings": [*asked.warnings, *result["warnings"]],
        }
        if asked.wishes.safety_identifier is not None:
            event["safety_identifier"] = asked.wishes.safety_identifier
        yield event


def error_event(body: Mapping[str, Any]) -> JsonObject:
    """The event of a job that failed after the stream began; `body` is what `error_body` makes, or a problem with it,
    whose `type` is another thing."""
    return {**body, "type": "error"}


def as_text(event: Mapping[str, Any]) -> str:
    """`event` as a server sends it, in ASCII, so that it may be cut anywhere."""
    return f"event: {event['type']}\ndata: {json.dumps(event, allow_nan=False)}\n\n"
