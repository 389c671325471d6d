"""One value of an OpenAI request: read, checked, or refused by the name that the client wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flux_engine.errors import InvalidInput
from flux_engine.job.validation import shown


def given_fields(body: object) -> dict[str, Any]:
    """The fields of `body` that say something: null means absent. Raises InvalidInput for anything but an object."""
    if not isinstance(body, Mapping):
        raise InvalidInput('the request must be a JSON object such as {"prompt": "a red sun"}')
    return {str(name): value for name, value in body.items() if value is not None}


def choice(given: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    """One of `choices`, or None where `name` is absent. Raises InvalidInput."""
    value = given.get(name)
    if value is not None and value not in choices:
        raise InvalidInput(f"`{name}` must be one of {', '.join(choices)}; got {shown(value)}", field=name)
    return value


def integer(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """An integer within its bounds, or None where `name` is absent. Raises InvalidInput."""
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"`{name}` must be an integer from {low} to {high}; got {shown(value)}", field=name)
    return value


def boolean(given: Mapping[str, Any], name: str) -> bool:
    """True or false; false where `name` is absent. Raises InvalidInput."""
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"`{name}` must be true or false; got {shown(value)}", field=name)
    return value
