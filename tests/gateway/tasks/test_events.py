"""What a watcher hears that reads slowly."""

from __future__ import annotations

import json
from typing import Any, Final

from flux_engine.gateway.tasks.events import Event, Watcher

SAID: Final[tuple[dict[str, Any], ...]] = ({"progress": 0.1}, {"cancelling": True}, {"progress": 0.2})


def test_what_was_said_in_a_status_is_not_lost_over_the_next_one() -> None:
    """That a task is being cancelled is said once, in an event that says nothing else."""
    watcher = Watcher()
    for number, said in enumerate(SAID, start=1):
        watcher.put(Event(f"{number}-0", "t", "status", json.dumps(said)))
    (event,) = watcher.take()
    assert (event.id, json.loads(event.data)) == ("3-0", {"progress": 0.2, "cancelling": True})
