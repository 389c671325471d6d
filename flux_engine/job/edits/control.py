"""`control`: a picture whose edges, depths or poses the result follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import Number, Picture
from flux_engine.job.validation import shown, shown_picture, validated

ControlType = Literal["canny", "depth", "pose", "tile"]

MAX_CONTROLS: Final = 2


class ControlFields(BaseModel):
    """One item of `control`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: ControlType = Field(description="What the picture shows")
    image: Picture = Field(description="The map itself; for canny any picture. Https URL, data URI or base64")
    strength: Annotated[Number, Field(ge=0, le=2)] = Field(0.7, description="How closely it is followed")
    end: Annotated[Number, Field(ge=0, le=1)] = Field(0.8, description="Share of the steps that follow it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One map that the result follows."""

    type: ControlType
    image: str  # as sent, not yet fetched
    strength: float
    end: float

    def shown(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "image": shown_picture(self.image),
            "strength": self.strength,
            "end": self.end,
        }


def controls_of(value: object) -> tuple[Control, ...] | None:
    """`control` as it was sent: one object, or a list of up to two. Raises InvalidInput."""
    if value is None:
        return None
    items = value if isinstance(value, list) else [value]
    if not 1 <= len(items) <= MAX_CONTROLS:
        raise InvalidInput(
            f"`control` must be an object or a list of up to {MAX_CONTROLS}; got {len(items)}", field="control"
        )
    named = [f"control[{index}]" for index in range(len(items))] if isinstance(value, list) else ["control"]
    return tuple(_control(name, item) for name, item in zip(named, items, strict=True))


def _control(name: str, item: object) -> Control:
    if not isinstance(item, Mapping):
        parts = ", ".join(ControlFields.model_fields)
        raise InvalidInput(f"`{name}` must be an object of {parts}; got {shown(item)}", field=name)
    written = validated(ControlFields, {k: v for k, v in item.items() if v is not None}, place=name)
    return Control(**written.model_dump())
