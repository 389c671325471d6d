"""`expand`: pixels added to the sides of a picture, painted by the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import SIDE_BOUNDS, Integer
from flux_engine.job.validation import shown, validated

MAX_ADDED: Final = SIDE_BOUNDS[1]  # pixels, to one side

Added = Annotated[Integer, Field(ge=0, le=MAX_ADDED)]


class ExpandFields(BaseModel):
    """`expand` as a client writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    left: Added = Field(0, description="Pixels added on the left")
    right: Added = Field(0, description="Pixels added on the right")
    top: Added = Field(0, description="Pixels added above")
    bottom: Added = Field(0, description="Pixels added below")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand:
    """Pixels added to each side; at least one is above 0."""

    left: int
    right: int
    top: int
    bottom: int

    def canvas(self, picture: tuple[int, int]) -> tuple[int, int]:
        """Width and height of a `picture` with what is added."""
        return picture[0] + self.left + self.right, picture[1] + self.top + self.bottom


def expand_of(value: object) -> Expand | None:
    """`expand` as it was sent. Raises InvalidInput."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"`expand` must be an object of {', '.join(ExpandFields.model_fields)}; got {shown(value)}", field="expand"
        )
    written = validated(ExpandFields, {k: v for k, v in value.items() if v is not None}, place="expand")
    added = Expand(**written.model_dump())
    if not any((added.left, added.right, added.top, added.bottom)):
        raise InvalidInput("`expand` adds nothing; give at least one side more than 0 pixels", field="expand")
    return added
