"""Failed logins, counted by address.

An address with `MOST` failures in a minute is turned away before its next guess is looked at. What has opened the
gateway from this process before goes on doing so: a stranger behind the same proxy cannot lock out who works there.
IPv6 addresses count by their /64, which is what one customer has. Counted in this process, without Redis: the bound
is there against floods, while guessing a key of 32 random bytes is hopeless by itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

MOST: Final = 20
WINDOW_S: Final = 60.0
MAX_ADDRESSES: Final = 20_000
MAX_GOOD: Final = 10_000


class FailedLogins:
    """The failures of the last minute, and credentials that were good."""

    def __init__(self, *, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def wait_s(self, address: str, credential: str) -> float:
        """How long this address has to wait before `credential` is looked at; 0 where it need not."""
        moments = self._recent(_network(address))
        if len(moments) < self._most or _fingerprint(credential) in self._good:
            return 0.0
        return moments[0] + WINDOW_S - self._clock()

    def failed(self, address: str) -> None:
        """Count a credential that opened nothing."""
        network = _network(address)
        moments = self._recent(network)
        moments.append(self._clock())
        self._failures[network] = moments
        self._failures.move_to_end(network)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, credential: str) -> None:
        """Remember that this one opened the gateway; only its hash is kept."""
        name = _fingerprint(credential)
        self._good[name] = None
        self._good.move_to_end(name)
        while len(self._good) > MAX_GOOD:
            self._good.popitem(last=False)

    def _recent(self, network: str) -> deque[float]:
        moments = self._failures.get(network, deque(maxlen=self._most))
        while moments and self._clock() - moments[0] >= WINDOW_S:
            moments.popleft()
        return moments


def _fingerprint(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "replace")).digest()


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
