"""A multipart form -> the JSON body that says the same.

A form knows text and files only, and clients write lists and objects in brackets: `image[]`, `loras[][path]`,
`metadata[order]`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args

from flux_engine.errors import InvalidInput
from flux_engine.job.base import JsonObject
from flux_engine.job.fields import ImageFields
from flux_engine.job.validation import shown_name
from flux_engine.job.written.aliases import ALIASES

NAME: Final = re.compile(r"(?P<name>[^\[\]]+)(?P<list>\[\d*\])?(?:\[(?P<key>[^\[\]]+)\])?")
NOT_TEXT: Final = ("n", "stream", "partial_images", "output_compression", "frame_count", "frame_duration_ms")
MAX_PARTS: Final = 200
Part = tuple[str, str | bytes]  # a field's text, or a file's bytes


def form_body(parts: Iterable[Part]) -> JsonObject:
    """The JSON body of a form's parts in their order; files become data URIs. Raises InvalidInput."""
    texts: dict[tuple[str, bool, str | None], list[Any]] = {}
    for count, (written, value) in enumerate(parts):
        if count == MAX_PARTS:
            raise InvalidInput(f"a form may have up to {MAX_PARTS} parts; send fewer")
        match = NAME.fullmatch(written)
        if match is None:
            raise InvalidInput(f"`{shown_name(written)}` is not the name of a form's field", field=shown_name(written))
        place = match["name"], match["list"] is not None, match["key"]
        texts.setdefault(place, []).append(_data_uri(value) if isinstance(value, bytes) else value)
    body: JsonObject = {}
    for name in dict.fromkeys(name for name, _, _ in texts):
        body[name] = _value(name, {place[1:]: values for place, values in texts.items() if place[0] == name})
    return body


def _value(name: str, written: Mapping[tuple[bool, str | None], list[Any]]) -> object:
    """The value of one field from all of its parts."""
    plain, listed = written.get((False, None), []), written.get((True, None), [])
    if plain or listed:
        values = [_read(name, text) for text in (*plain, *listed)]
        return values if listed or len(values) > 1 else values[0]
    of_items = {key: values for (is_list, key), values in written.items() if is_list and key is not None}
    if not of_items:
        return {key: _loaded(values[-1]) for (_, key), values in written.items()}
    if len({len(values) for values in of_items.values()}) > 1:
        raise InvalidInput(f"send `{name}` as one JSON text: a form cannot say which item each part means", field=name)
    return [dict(item) for item in _transposed(of_items)]


def _transposed(columns: Mapping[str, list[Any]]) -> Iterator[list[tuple[str, Any]]]:
    for values in zip(*columns.values(), strict=True):
        yield [(key, _loaded(value)) for key, value in zip(columns, values, strict=True)]


def _read(name: str, text: str) -> object:
    """Text where the field takes text, else the JSON that `text` is."""
    return text if _takes_text(name) else _loaded(text)


def _takes_text(name: str) -> bool:
    if name in NOT_TEXT:
        return False
    field = ImageFields.model_fields.get(ALIASES.get(name, name))
    if field is None or name == "quality":  # here it is OpenAI's
        return True
    return _has_text(field.annotation)


def _has_text(annotation: object) -> bool:
    return annotation is str or any(_has_text(part) or isinstance(part, str) for part in get_args(annotation))


def _loaded(text: str) -> object:
    """Numbers, `true`, lists and objects by their JSON; anything else stays text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _data_uri(content: bytes) -> str:
    """What kind of picture it is, its bytes say later."""
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()
