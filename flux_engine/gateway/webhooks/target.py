"""Where a client wants to be told, and of what: `{"url": "https://...", "events": ["completed", "failed"]}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

from flux_engine.errors import InputFetchFailed
from flux_engine.gateway.problems import Refused
from flux_engine.gateway.task import FINAL, Status
from flux_engine.net.post import Poster

EVENTS: Final[tuple[str, ...]] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Target:
    """An address that may be posted to, and the statuses that it is told of."""

    url: str
    events: tuple[str, ...]

    @classmethod
    def parse(cls, given: object, poster: Poster) -> Target:
        """A request's `webhook`. Raises Refused, with the field at fault."""
        if not isinstance(given, Mapping):
            raise Refused('a webhook is an object such as {"url": "https://example.com/hook"}', field="webhook")
        for name in given:
            if name not in ("url", "events"):
                raise Refused("a webhook has a url and events, nothing else", field="webhook")
        url = given.get("url")
        if not isinstance(url, str) or not url:
            raise Refused("a webhook needs the https address to post to", field="webhook.url")
        try:
            poster.check(url)
        except InputFetchFailed as error:
            raise Refused(error.message, field="webhook.url") from None
        return cls(url, _events(given.get("events")))

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Target:
        """The target of a task, which was parsed when the task was made."""
        return cls(str(kept["url"]), tuple(kept.get("events") or FINAL))

    def to_json(self) -> dict[str, Any]:
        return {"url": self.url, "events": list(self.events)}


def _events(given: object) -> tuple[str, ...]:
    if given is None:
        return FINAL
    if not isinstance(given, list) or not given or not all(event in EVENTS for event in given):
        raise Refused(f"events is a list of one or more of {', '.join(EVENTS)}", field="webhook.events")
    return tuple(dict.fromkeys(given))
