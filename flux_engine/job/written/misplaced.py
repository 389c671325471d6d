"""Jobs whose fields are in the wrong place: beside `input`, a level too deep, wrapped twice, or sent as text.

Each function returns what is wrong and what to send, or None.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from flux_engine.job.fields import ImageFields
from flux_engine.job.validation import shown_name
from flux_engine.job.video_fields import VideoFields

EXAMPLE: Final = '{"input": {"prompt": "a red sun"}}'
DISTINCT: Final = (frozenset(ImageFields.model_fields) | frozenset(VideoFields.model_fields)) - {
    *(
        "type",
        "model",
        "mode",
        "cache",
        "metadata",
        "preview",
        "loop",
        "image",
        "mask",
    ),  # platforms have such names too
}
OUTSIDE: Final = ("s3Config", "webhook", "policy")  # the platform's own, which stand beside `input`
_SHOWN: Final = 4


def envelope_fault(raw: object, others: Collection[str] = ()) -> str | None:
    """What is wrong around `input` in the platform's job dictionary; `others` are other names of a job's fields."""
    if not isinstance(raw, Mapping):
        return f"the job must be a JSON object with an `input`, such as {EXAMPLE}"
    beside = [name for name in raw if isinstance(name, str) and (name in DISTINCT or name in others)]
    given = raw.get("input")
    if isinstance(given, Mapping):
        if beside:
            return f"{_names(beside)} beside `input` {_have(beside)} no effect; move {_them(beside)} into `input`"
        return _wrapped_twice(given)
    if given is None and beside:
        return f"the fields of the job must be in `input`; send {EXAMPLE} with {_names(beside)} in `input`"
    return _not_an_object(given)


def _not_an_object(given: object) -> str:
    if isinstance(given, str):
        return _text(given)
    if isinstance(given, list):
        return "`input` is a list; send one job for each of its items, each with an object as `input`"
    return f"`input` must be a JSON object, as in {EXAMPLE}"


def depth_fault(name: str, value: object, others: Collection[str] = ()) -> str | None:
    """What is wrong with the unknown field `name` that belongs beside `input`, or whose value holds fields of a job."""
    if name in OUTSIDE:
        return f"`{name}` stands beside `input` and not in it; move it out of `input`"
    if not isinstance(value, Mapping):
        return None
    known = DISTINCT | {"image", "mask", "type", *others}
    inside = [part for part in value if isinstance(part, str) and part in known]
    if not inside:
        return None
    place = shown_name(name)
    return f"the fields of a job stand directly in `input`; move {_names(inside)} out of `{place}`"


def _wrapped_twice(given: Mapping[Any, Any]) -> str | None:
    if isinstance(given.get("input"), Mapping):
        return f"the job is wrapped twice: `input` holds another `input`; send {EXAMPLE}, with one `input` alone"
    return None


def _text(given: str) -> str:
    if given.lstrip()[:1] == "{":
        try:
            is_object = isinstance(json.loads(given), dict)
        except (ValueError, RecursionError):
            is_object = False
        if is_object:
            return "`input` is a JSON object encoded as text; send the object itself, encoded once"
    return f"`input` is text; send it as the prompt of an object: {EXAMPLE}"


def _names(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _have(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
