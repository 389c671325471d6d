"""What was measured of late, kept in Redis for whoever estimates: the last few rows of each field of a subject.

    flux:NAMESPACE:measured:SUBJECT      a hash: field -> a JSON list of rows, newest first

    measurements.note("a/model", {"1024x1024": row})     # returns at once: no client waits for a measurement

A subject has at most MAX_FIELDS fields; beyond that one goes at random. What rows hold is not looked at here. A server
that does not answer is no measurement, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from flux_engine.cache.late import LateWrites
from flux_engine.cache.redis_link import CacheAway, RedisLink

ROWS: Final = 9
MAX_FIELDS: Final = 200
KEPT_S: Final = 30 * 86_400
LATER_S: Final = 0.1  # a job that comes at once is on the GPU by then, and waits for none of this

# KEYS: subject. ARGV: rows kept, most fields, seconds kept, then a field and its new row, again and again.
NOTE: Final = """
for i = 4, #ARGV, 2 do
  local rows = {}
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if old then rows = cjson.decode(old) end
  table.insert(rows, 1, cjson.decode(ARGV[i + 1]))
  while #rows > tonumber(ARGV[1]) do table.remove(rows) end
  redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(rows))
end
while redis.call('HLEN', KEYS[1]) > tonumber(ARGV[2]) do
  redis.call('HDEL', KEYS[1], redis.call('HRANDFIELD', KEYS[1]))
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
READ: Final = "return redis.call('HGETALL', KEYS[1])"

Rows = list[dict[str, Any]]


class Measurements:
    """The measurements of one namespace on one server, for one event loop."""

    def __init__(self, link: RedisLink, *, namespace: str) -> None:
        self._link = link
        self._root = f"flux:{quote(namespace, safe='', errors='backslashreplace')}:measured"
        self._late = LateWrites()

    def note(self, subject: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Add one row to each field named, in the background; `read` and `close` wait for it."""
        fields = [part for field, row in rows.items() for part in (field, json.dumps(row, allow_nan=False))]
        self._late.soon(partial(self._add, subject, fields), delay_s=LATER_S)

    async def read(self, subject: str) -> dict[str, Rows]:
        """The rows of every field; empty where nothing is known or the server is away."""
        await self._late.settled()
        try:
            reply = await self._link.eval(READ, [self._key(subject)], [])
        except CacheAway:
            return {}
        parts = iter(reply)
        found = {field.decode(): _rows(raw) for field, raw in zip(parts, parts, strict=True)}
        return {field: rows for field, rows in found.items() if rows}

    async def close(self) -> None:
        """Wait for what is being noted: at most LATER_S and a call's time."""
        await self._late.close()

    async def _add(self, subject: str, fields: Sequence[str]) -> None:
        await self._link.eval(NOTE, [self._key(subject)], [ROWS, MAX_FIELDS, KEPT_S, *fields])

    def _key(self, subject: str) -> str:
        return f"{self._root}:{quote(subject, safe='')}"


def _rows(raw: bytes) -> Rows:
    try:
        rows = json.loads(raw)
    except ValueError:
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
