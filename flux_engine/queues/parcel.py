"""Job inputs and results on their way through a broker: small ones in the message, large ones by way of a store.

    parcel = await parcels.pack({"image": "data:..."})     # {"value": ...} or {"key": ..., "bytes": ..., "sha256": ...}
    value = await parcels.unpack(parcel)

A broker keeps its messages in memory, so that a queue of jobs with pictures would fill it. What is over a megabyte goes
to the bucket, or to a folder that both sides mount.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from flux_engine.errors import StorageFailed
from flux_engine.results.store import ResultStore, object_key

MESSAGE_BYTES: Final = 1_000_000


class Parcels:
    """Packs for the other side. Without a store large values cannot be sent."""

    def __init__(self, store: ResultStore | None) -> None:
        self._store = store

    async def pack(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Raises StorageFailed."""
        data = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        if len(data) <= MESSAGE_BYTES:
            return {"value": value}
        if self._store is None:
            raise StorageFailed("more than 1 MB needs a bucket, or CELERY_FOLDER shared by gateway and workers")
        sha256 = hashlib.sha256(data).hexdigest()
        key = object_key(self._store.prefix, sha256, "json")
        await self._store.put(data, key=key, content_type="application/json")
        return {"key": key, "bytes": len(data), "sha256": sha256}

    async def unpack(self, parcel: Mapping[str, Any]) -> dict[str, Any]:
        """Raises StorageFailed."""
        if "value" in parcel:
            value = parcel["value"]
        elif self._store is None:
            raise StorageFailed("the other side uses a bucket or CELERY_FOLDER, and this one has neither")
        else:
            data = await self._store.get(str(parcel["key"]), size=int(parcel["bytes"]), sha256=str(parcel["sha256"]))
            value = json.loads(data)
        if not isinstance(value, dict):
            raise StorageFailed("the parcel is damaged")
        return value
