"""Reference pictures as clients write them: a list under one of several names, or one field for each (`input_image_2`).

The order is the client's, since a prompt says "image 1" and "image 2". What may stand in the list is a picture as in
`image`; how many there may be is the model's to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.job.validation import is_same, shown

FIRST: Final = "input_image"  # picture 1 of BFL's names, and a picture to start from where it stands alone
NUMBERED: Final = re.compile(r"input_image_([1-9][0-9]?)")
ONE_PICTURE: Final = ("image", "mask")


def numbered_name(number: int) -> str:
    """What picture `number` is called, from 2 on."""
    return f"{FIRST}_{number}"


def with_numbered_pictures(raw: Mapping[object, object]) -> Mapping[object, object]:
    """`raw` with `images` in place of `input_image`, `input_image_2` and so on. Raises InvalidInput for a gap."""
    by_number: dict[int, str] = {}
    for name, value in raw.items():
        if isinstance(name, str) and value is not None and (numbered := NUMBERED.fullmatch(name)) is not None:
            by_number[int(numbered[1])] = name
    if not by_number:
        return raw
    if raw.get(FIRST) is not None:
        if 1 in by_number:
            raise InvalidInput(f"`{FIRST}` and `{by_number[1]}` are both picture 1; send one of them", field=FIRST)
        by_number[1] = FIRST
    for number, name in sorted(by_number.items()):
        if number - 1 not in (0, *by_number):
            before = FIRST if number == 2 else numbered_name(number - 1)
            raise InvalidInput(f"`{name}` needs `{before}`: pictures are counted without a gap", field=name)
    pictures = [raw[by_number[number]] for number in sorted(by_number)]
    if raw.get("images") is not None and not is_same(raw["images"], pictures):
        raise InvalidInput(f"`images` and `{FIRST}` give different pictures; send one of them", field="images")
    rest = {name: value for name, value in raw.items() if name not in by_number.values()}
    return {**rest, "images": pictures}


def reference_pictures(name: str, value: object) -> tuple[str, ...] | None:
    """The list that `images` or an alias of it holds; None for an empty one. Raises InvalidInput."""
    if not isinstance(value, list):
        raise InvalidInput(f"`{name}` must be a list of pictures; got {shown(value)}", field=name)
    for index, picture in enumerate(value):
        if not isinstance(picture, str) or not picture:
            raise InvalidInput(
                f"`{name}[{index}]` must be an https URL, a data URI or base64 of a picture; got {shown(picture)}",
                field=f"{name}[{index}]",
            )
    return tuple(value) or None


def one_picture(name: str, value: object) -> object:
    """`value` of `image` or `mask`. Raises InvalidInput for a list, which `images` takes."""
    if isinstance(value, list):
        raise InvalidInput(f"`{name}` is one picture; send several as `images`", field=name)
    return value
