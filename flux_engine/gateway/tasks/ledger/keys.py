"""The names of the ledger's keys in Redis, and what each holds.

All are under `flux:NAMESPACE:gateway:`, with users' names quoted so that no user reaches another's keys:

    task:ID          hash, see task.py           input:ID      what the worker is sent, as JSON
    events:ID        stream for replay           preview:ID    the newest preview alone
    index:USER       sorted set of the user's tasks by time
    user:USER        stream of all of a user's events
    due              sorted set of tasks by when to look at them next
    key:USER:HASH    an Idempotency-Key
    join:USER:HASH   the newest task of one body
    file:KEY         set of the tasks that have a file
    loose            sorted set: parts of inputs that were stored, each with its task, until that is seen to have it
    changes          channel: USER, task, event id, kind and data, a line each
    probe            nothing: whether the server takes a write
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """All under `root`; see the module."""

    root: str

    @classmethod
    def of(cls, namespace: str) -> LedgerKeys:
        return cls(f"flux:{quote(namespace, safe='', errors='backslashreplace')}:gateway")

    @property
    def channel(self) -> str:
        return f"{self.root}:changes"

    @property
    def probe(self) -> str:
        return f"{self.root}:probe"

    @property
    def due(self) -> str:
        return f"{self.root}:due"

    @property
    def looks(self) -> str:
        """How many looks the queue takes now."""
        return f"{self.root}:looks"

    @property
    def loose(self) -> str:
        return f"{self.root}:loose"

    def task(self, task_id: str) -> str:
        return f"{self.root}:task:{task_id}"

    def input(self, task_id: str) -> str:
        return f"{self.root}:input:{task_id}"

    def events(self, task_id: str) -> str:
        return f"{self.root}:events:{task_id}"

    def preview(self, task_id: str) -> str:
        return f"{self.root}:preview:{task_id}"

    def index(self, user: str) -> str:
        return f"{self.root}:index:{quoted_user(user)}"

    def user_events(self, user: str) -> str:
        return f"{self.root}:user:{quoted_user(user)}"

    def holders(self, file_key: str) -> str:
        return f"{self.root}:file:{file_key}"

    def idempotency(self, user: str, key: str) -> str:
        return f"{self.root}:key:{quoted_user(user)}:{hashlib.sha256(key.encode()).hexdigest()}"

    def join(self, user: str, body_hash: str) -> str:
        return f"{self.root}:join:{quoted_user(user)}:{body_hash}"


def quoted_user(user: str) -> str:
    """`user` as it stands in keys and on the channel."""
    return quote(user, safe="", errors="backslashreplace")
