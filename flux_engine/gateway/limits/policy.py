"""Quotas, and the headers that tell clients of them: RateLimit-Policy, RateLimit and Retry-After.

The fields follow draft-ietf-httpapi-ratelimit-headers-11. Work is counted in thousandths, as integers, so that sums are
exact; clients see whole units, rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.gateway.problems import TooMany

MILLI: Final = 1000
Unit = Literal["requests", "work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """At most `quota` units in any `window_s` seconds.

    A window moves in `slots` steps: what was used counts until its slot has left the window whole, so that no stretch
    of `window_s` ever holds more than the quota. `slots` is of no meaning for requests.
    """

    name: str
    quota: int
    window_s: int
    unit: Unit = "work"
    slots: int = 20

    @property
    def slot_ms(self) -> int:
        return self.window_s * 1000 // self.slots

    def header(self) -> str:
        """One item of RateLimit-Policy. `requests` is the draft's default unit."""
        unit = "" if self.unit == "requests" else f';qu="{self.unit}"'
        return f'"{self.name}";q={self.quota}{unit};w={self.window_s}'


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a policy is left: `remaining` units, of which some come back in `reset_s` at the earliest."""

    policy: Policy
    remaining: float
    reset_s: float

    def header(self) -> str:
        """One item of RateLimit."""
        return f'"{self.policy.name}";r={max(0, math.floor(self.remaining))};t={max(0, math.ceil(self.reset_s))}'


def headers_of(standings: Sequence[Standing]) -> dict[str, str]:
    """RateLimit-Policy and RateLimit; neither where there is nothing to say."""
    if not standings:
        return {}
    return {
        "RateLimit-Policy": ", ".join(standing.policy.header() for standing in standings),
        "RateLimit": ", ".join(standing.header() for standing in standings),
    }


def merged(*headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of several checks of one request, each list joined."""
    together: dict[str, str] = {}
    for name, value in (item for group in headers for item in group.items()):
        together[name] = f"{together[name]}, {value}" if name in together else value
    return together


def too_many(detail: str, standings: Sequence[Standing], violated: Sequence[str], *, retry_after_s: float) -> TooMany:
    """The answer to whoever is over a quota that comes back."""
    wait_s = max(1, math.ceil(retry_after_s))
    return TooMany(
        f"{detail}; try again in {wait_s} s",
        retryable=True,
        headers={**headers_of(standings), "Retry-After": str(wait_s)},
        extra={"violated-policies": list(violated)},
    )


def never(detail: str, standings: Sequence[Standing], violated: Sequence[str]) -> TooMany:
    """The answer to what no waiting makes possible: no Retry-After, and the openai client does not try again."""
    return TooMany(detail, headers=headers_of(standings), extra={"violated-policies": list(violated)})
