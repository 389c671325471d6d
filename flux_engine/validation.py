"""pydantic's findings in the contract's words: InvalidInput that names the field and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flux_engine.errors import InvalidInput
from flux_engine.fields import allowed_values

Fields = TypeVar("Fields", bound=BaseModel)

MAX_SHOWN_SOURCE: Final = 256


def validated(model: type[Fields], given: Mapping[str, object]) -> Fields:
    """`given` as a `model`. Raises InvalidInput."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _invalid(model, error.errors()[0]) from None


def _invalid(model: type[BaseModel], detail: ErrorDetails) -> InvalidInput:
    name = str(detail["loc"][0])
    if detail["type"] == "missing":
        return InvalidInput(f"`{name}` is required: {allowed_values(model, name)}", field=name)
    return InvalidInput(f"`{name}` must be {allowed_values(model, name)}; got {shown(detail['input'])}", field=name)


def shown(value: object) -> str:
    """`value` for a message: short, and free of what JSON cannot carry."""
    text = value if isinstance(value, str) else repr(value)[:200] if _is_small(value) else type(value).__name__
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 60 else clean[:57] + "..."


def shown_source(source: str) -> str:
    """Where a file comes from, as it is echoed: without a URL's query, which may be a signature, and without the bytes
    of a file."""
    path = source.partition("?")[0] if "://" in source[:16] else source
    if path.startswith("data:") or len(path) > MAX_SHOWN_SOURCE:
        return f"base64 of {len(source)} characters"
    return path


def _is_small(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() < 600
    return value is None or isinstance(value, float)


def is_same(one: object, other: object) -> bool:
    """Equal and of one type: 1 is not True."""
    return type(one) is type(other) and one == other
