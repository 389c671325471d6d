"""The LoRAs that a job names: the forms in which clients write them, and LoraRequest, the result of parsing one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import MAX_LORAS, LoraItem, SharedFields
from flux_engine.job.validation import is_same, shown_name, shown_source, validated

CIVITAI: Final = "civitai:"
CIVITAI_TOKEN: Final = re.compile(r"([?&])token=[^&#]*&?", re.IGNORECASE)
CIVITAI_PAGE: Final = re.compile(r"https://(www\.)?civitai\.(com|red|green)/", re.IGNORECASE)
CIVITAI_VERSION: Final = re.compile(r"[?&](modelVersionId=[0-9]{1,12})(?=[&#]|$)")
ITEM_ALIASES: Final = {"url": "path", "weight": "scale"}
DEFAULT_SCALE: Final = 1.0


@dataclass(frozen=True, slots=True)
class LoraRequest:
    """A LoRA that a job names: its source, in a form of the contract, and its strength."""

    path: str
    scale: float

    def shown(self) -> dict[str, Any]:
        """For the result: without the bytes of a file and without a URL's query, which may be a signature. What says
        which LoRA of Civitai it is stays: the version that its page is opened at, and a short form's query but for the
        token."""
        if self.path[: len(CIVITAI)].lower() == CIVITAI:
            return {"path": CIVITAI_TOKEN.sub(r"\1", self.path).rstrip("?&"), "scale": self.scale}
        shown = shown_source(self.path)
        version = CIVITAI_VERSION.search(self.path) if CIVITAI_PAGE.match(shown) else None
        return {"path": f"{shown}?{version[1]}" if version is not None else shown, "scale": self.scale}


def lora_items(name: str, value: object) -> tuple[LoraItem, ...]:
    """Parse `loras` or an alias of it: one LoRA or a list, each a string or an object. Raises InvalidInput."""
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_LORAS:
        raise InvalidInput(f"`{name}` must be a list of up to {MAX_LORAS} LoRAs; got {len(items)}", field=name)
    return tuple(_lora_item(f"{name}[{index}]", item) for index, item in enumerate(items))


def _lora_item(name: str, item: object) -> LoraItem:
    written = item if isinstance(item, Mapping) else {"path": item}
    given: dict[str, object] = {}
    for key, value in written.items():
        canonical = ITEM_ALIASES.get(key, key)
        if value is None:
            continue
        if canonical not in LoraItem.model_fields:
            raise InvalidInput(f"`{shown_name(key)}` is not a field of `{name}`; send `path` and `scale`", field=name)
        if canonical in given and not is_same(given[canonical], value):
            raise InvalidInput(f"`{name}` gives `{canonical}` two different values; send one of them", field=name)
        given[canonical] = value
    return validated(LoraItem, given, place=name, field=name)


def lora_requests(given: SharedFields, warnings: list[str]) -> tuple[LoraRequest, ...]:
    """The LoRAs of a job at their effective scales; adds to `warnings`."""
    if given.lora_scale is not None and all(item.scale is not None for item in given.loras):
        why = "every LoRA has a scale of its own" if given.loras else "no LoRA is named in `loras`"
        warnings.append(f"`lora_scale` has no effect: {why}")
    default = DEFAULT_SCALE if given.lora_scale is None else given.lora_scale
    return tuple(LoraRequest(item.path, default if item.scale is None else item.scale) for item in given.loras)
