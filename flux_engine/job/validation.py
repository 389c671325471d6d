"""pydantic's errors in the contract's words: InvalidInput that names the field and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import MAX_DEPTH, MAX_SEED, allowed_values

Fields = TypeVar("Fields", bound=BaseModel)

MAX_SHOWN_SOURCE: Final = 256


def validated(
    model: type[Fields],
    given: Mapping[str, object],
    *,
    place: str | None = None,
    field: str | None = None,
    takes: Mapping[str, str] | None = None,
) -> Fields:
    """`given` as a `model`. Raises InvalidInput.

    `place` is the position in the job, such as `keyframes[1]`. The error's `field` is the wrong part, or `field` where
    that is given. `takes` overrides, for some parts, the description that their declarations give.
    """
    for name in given:
        if name not in model.model_fields:
            raise InvalidInput(
                f"`{place or 'input'}` has no `{shown_name(name)}`; it takes {', '.join(model.model_fields)}",
                field=field or place or shown_name(name),
            )
    try:
        return model.model_validate(given)
    except ValidationError as error:
        detail = error.errors()[0]
    part = str(detail["loc"][0])
    path = f"{place}.{part}" if place else part
    allowed = (takes or {}).get(part) or allowed_values(model, part)
    if detail["type"] == "missing":
        raise InvalidInput(f"`{path}` is required; send {allowed}", field=field or path)
    raise InvalidInput(f"`{path}` must be {allowed}; got {shown(detail['input'])}", field=field or path)


def shown(value: object) -> str:
    """`value` for a message: short, strings in quotes, printable characters only."""
    if isinstance(value, str):
        return f'"{shown_name(value)}"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and abs(value) < MAX_SEED and value.is_integer():
        return str(int(value))
    return shown_name(repr(value)[:200]) if _is_small(value) else _kind(value)


def shown_name(name: object) -> str:
    """As `shown` without quotes, for use in backticks."""
    text = str(name) if isinstance(name, str) or _is_small(name) else _kind(name)
    clean = "".join(c if c.isprintable() else "?" for c in text[:200])
    return clean if len(clean) <= 60 else clean[:57] + "..."


def shown_source(source: str) -> str:
    """The source of a file for the result: without a URL's query, which may be a signature, and without its bytes."""
    path = source.partition("?")[0] if "://" in source[:16] else source
    if path[:5].lower() == "data:" or len(path) > MAX_SHOWN_SOURCE:
        return f"base64 of {len(source)} characters"
    return path


def shown_picture(source: str) -> str:
    """As shown_source, for a picture: anything but a URL is its bytes, however few."""
    return shown_source(source) if "://" in source[:16] else f"base64 of {len(source)} characters"


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else "a long number" if isinstance(value, int) else type(value).__name__


def _is_small(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() < 600
    return value is None or isinstance(value, float)


def is_same(one: object, other: object, *, depth: int = MAX_DEPTH) -> bool:
    """Whether two parts of a job mean the same: 28 is 28.0, 1 is not true, and null is absent."""
    if not depth and isinstance(one, Mapping | list):
        return False  # no valid value is that deep
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = {name for value in (one, other) for name, part in value.items() if part is not None}
        return all(is_same(one.get(name), other.get(name), depth=depth - 1) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_same(a, b, depth=depth - 1) for a, b in zip(one, other, strict=True))
    return one == other
