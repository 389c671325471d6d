"""Boxes that place what a prompt names: shares of the picture's sides, from its upper left corner."""

from __future__ import annotations

from collections.abc import Mapping

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import MAX_BOXES, BoxItem
from flux_engine.job.validation import shown, shown_name, validated

ROUNDING: float = 1e-6  # by which a box may reach beyond the picture's edge


def box_items(name: str, value: object) -> tuple[BoxItem, ...] | None:
    """Parse `boxes`: a list of `{prompt, x, y, width, height}`; None for an empty one. Raises InvalidInput."""
    if not isinstance(value, list):
        raise InvalidInput(
            f"`{name}` must be a list of `{{prompt, x, y, width, height}}`; got {shown(value)}", field=name
        )
    if len(value) > MAX_BOXES:
        raise InvalidInput(f"`{name}` must be a list of up to {MAX_BOXES} boxes; got {len(value)}", field=name)
    return tuple(_box_item(f"{name}[{index}]", item) for index, item in enumerate(value)) or None


def _box_item(name: str, item: object) -> BoxItem:
    if not isinstance(item, Mapping):
        raise InvalidInput(f"`{name}` must be an object of prompt, x, y, width, height; got {shown(item)}", field=name)
    given: dict[str, object] = {}
    for key, value in item.items():
        if key not in BoxItem.model_fields:
            raise InvalidInput(
                f"`{shown_name(key)}` is not a field of `{name}`; send {', '.join(BoxItem.model_fields)}", field=name
            )
        if value is not None:
            given[key] = value
    box = validated(BoxItem, given, place=name)
    for start, length in (("x", "width"), ("y", "height")):
        end = getattr(box, start) + getattr(box, length)
        if end > 1 + ROUNDING:
            raise InvalidInput(
                f"`{name}` ends at {end:g} of the picture's {length}; `{start}` + `{length}` is at most 1: they are "
                "shares, not pixels",
                field=f"{name}.{length}",
            )
    return box
