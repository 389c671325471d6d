"""The keyframes that a client writes: a list of objects, or an object of prompts by frame."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from flux_engine.errors import InvalidInput
from flux_engine.job.validation import shown, validated
from flux_engine.job.video_fields import MAX_KEYFRAMES, KeyframeFields


def written_keyframes(name: str, value: object) -> tuple[KeyframeFields, ...]:
    """What `keyframes` or an alias of it says. Raises InvalidInput."""
    items = _items_of_object(name, value) if isinstance(value, Mapping) else value
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_KEYFRAMES:
        got = f"{len(items)} of them" if isinstance(items, list) else shown(value)
        raise InvalidInput(
            f"`{name}` must be a list of 1 to {MAX_KEYFRAMES} {{frame, prompt, seed?}}, or an object of prompts by "
            f"frame; got {got}",
            field=name,
        )
    keyframes = tuple(_keyframe(f"{name}[{i}]", item) for i, item in enumerate(items))
    if keyframes[0].frame != 0:
        raise InvalidInput(f"the first of `{name}` must be frame 0; got {keyframes[0].frame}", field=name)
    if any(after.frame <= before.frame for before, after in pairwise(keyframes)):
        raise InvalidInput(f"the frames of `{name}` must increase from one to the next", field=name)
    return keyframes


def _keyframe(place: str, item: object) -> KeyframeFields:
    if not isinstance(item, Mapping):
        names = ", ".join(KeyframeFields.model_fields)
        raise InvalidInput(f"`{place}` must be an object of {names}; got {shown(item)}", field=place)
    return validated(KeyframeFields, {k: v for k, v in item.items() if v is not None}, place=place)


def _items_of_object(name: str, value: Mapping[Any, Any]) -> list[dict[str, object]]:
    items = []
    for frame, prompt in value.items():
        if not (isinstance(frame, str) and frame.isascii() and frame.isdigit() and len(frame) <= 4):
            raise InvalidInput(
                f'the names in `{name}` must be frames such as "0" and "24"; got {shown(frame)}', field=name
            )
        items.append({"frame": int(frame), "prompt": prompt})
    return sorted(items, key=lambda item: int(str(item["frame"])))
