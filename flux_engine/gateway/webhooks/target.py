"""Where a client wants to be told, and of what: `{"url": "https://...", "events": ["completed", "failed"]}`.

The events are those of a task's stream: `status` when a worker begins, and how the task ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flux_engine.errors import InputFetchFailed
from flux_engine.gateway.problems import Refused
from flux_engine.gateway.task import FINAL
from flux_engine.net.post import Poster

BEFORE_THE_END: Final = "status"
EVENTS: Final = (BEFORE_THE_END, *FINAL)


@dataclass(frozen=True, slots=True)
class Target:
    """An address that may be posted to, and the events that it is told of."""

    url: str
    events: tuple[str, ...]

    @classmethod
    def parse(cls, given: object, poster: Poster) -> Target:
        """A request's `webhook`, an address or an object. Raises Refused, with the field at fault."""
        if isinstance(given, str):
            given = {"url": given}
        if not isinstance(given, Mapping) or not given.keys() <= {"url", "events"}:
            said = '`webhook` must be an object such as {"url": "https://example.com/hook", "events": ["completed"]}'
            raise Refused(said, field="webhook")
        url = given.get("url")
        if not isinstance(url, str):
            raise Refused("`webhook.url` must be an https URL", field="webhook.url")
        try:
            poster.check(url)
        except InputFetchFailed as error:
            raise Refused(f"`webhook.url`: {error.message}", field="webhook.url") from None
        return cls(url, _events(given.get("events")))

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Target:
        """The target of a task, which was parsed when the task was made."""
        return cls(str(kept["url"]), tuple(kept.get("events") or FINAL))

    def is_told_of(self, status: str) -> bool:
        """Whether a task's new status is one of the events."""
        return (status if status in FINAL else BEFORE_THE_END) in self.events

    def to_json(self) -> dict[str, Any]:
        return {"url": self.url, "events": list(self.events)}


def _events(given: object) -> tuple[str, ...]:
    if given is None:
        return FINAL
    if not isinstance(given, list) or not given or not all(event in EVENTS for event in given):
        raise Refused(f"`webhook.events` must be a list of {', '.join(EVENTS)}", field="webhook.events")
    return tuple(dict.fromkeys(given))
