"""What has to hold after one fault, whatever it was."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from flux_engine.cache.flight import AWAY
from flux_engine.errors import ErrorCode
from flux_engine.results.entry import TaskStatus
from flux_engine.worker.worker import NOT_STORED
from tests.waiting import until
from tests.worker.faults.jobs import INLINE, Case
from tests.worker.faults.plan import Fault
from tests.worker.faults.site import Outcome, Parts, Site, site

PROBE: Final = Case(name="probe", fields={**INLINE, "cache": False})
PATIENCE_S: Final = float(os.environ.get("FAULTS_PATIENCE_S", "300"))  # less where many faults are looked for


@dataclass(frozen=True, slots=True)
class Sound:
    """A run of `case` without a fault: what its files are, and those of a job that comes afterwards."""

    files: tuple[str, ...]
    warnings: frozenset[str]
    probe: tuple[str, ...]
    counted: dict[Any, int]


async def sound_run(parts: Parts, folder: Path, case: Case) -> Sound:
    """`case` without a fault, with all claims that need none to compare with."""
    async with site(parts, folder, has_urls=not case.is_inline) as place:
        first, *others = await place.run_with(case, None)
        files = hashes_of(first)
        assert all(hashes_of(other) == files for other in others)
        warnings = frozenset((first.answer or {}).get("warnings", ()))
        return Sound(files, warnings, hashes_of(await place.run(PROBE, "probe")), dict(place.calls.counted))


async def check_fault(parts: Parts, folder: Path, case: Case, fault: Fault, sound: Sound) -> None:
    """`case` with `fault`, and every claim."""
    threads, descriptors, tasks = set(threading.enumerate()), _descriptors(), asyncio.all_tasks()
    async with site(parts, folder, has_urls=not case.is_inline) as place:
        outcomes = await place.run_with(case, fault)
        for outcome in outcomes:
            _check_answer(outcome, fault, sound, may_be_cancelled=outcome is outcomes[0])
        assert sum(outcome.error is not None for outcome in outcomes) <= 1, "one fault failed both twins"
        await _until(lambda: _has_no(place.leases()), "a lease is left")
        for outcome in outcomes:
            await _check_status(place, outcome)
        assert hashes_of(await place.run(PROBE, "probe")) == sound.probe, "the next job is another"
        if outcomes[0].answer is not None:
            await _check_retry(place, outcomes[0], case, fault, sound)
        await _until(lambda: not place.partial_files(), "a partial file is left")
    await _until(lambda: _descriptors() <= descriptors, "a descriptor is left")
    await _until(lambda: not asyncio.all_tasks() - tasks, "a task is left")
    await _until(lambda: not [t for t in set(threading.enumerate()) - threads if _is_own(t)], "a thread is left")


def hashes_of(outcome: Outcome) -> tuple[str, ...]:
    """Of the result's files. Fails where there is none."""
    answer = outcome.answer
    assert answer is not None, "it was cancelled"
    assert "error" not in answer, answer
    if "video" in answer:
        return (answer["video"]["sha256"],)
    if "data" in answer:  # as OpenAI has it
        return tuple(image["b64_json"] for image in answer["data"])
    return tuple(image["sha256"] for image in answer["images"])


def _check_answer(outcome: Outcome, fault: Fault, sound: Sound, *, may_be_cancelled: bool) -> None:
    if outcome.answer is None:
        assert fault.cancels, "it was cancelled by itself"
        assert may_be_cancelled, "its twin was cancelled"
        return
    json.dumps(outcome.answer, allow_nan=False)
    error = outcome.error
    if error is None:
        assert hashes_of(outcome) == sound.files
        said = set(outcome.answer.get("warnings", ())) - sound.warnings
        assert said <= {AWAY, NOT_STORED}, said
        assert not (outcome.answer.get("cached") and said), "a hit with a warning"
        return
    assert "Traceback" not in str(error)
    assert error["code"] in get_args(ErrorCode), error
    assert error["code"] != "internal", error
    assert error["retryable"], error  # each of these faults passes
    assert fault.seam in ("store", "web"), f"a fault of {fault.seam} fails no job: {error}"


async def _check_status(place: Site, outcome: Outcome) -> None:
    """The status in the cache says what the job's answer said."""
    expected: tuple[str, str | None] = ("completed", None)
    if outcome.answer is None:
        expected = ("failed", "cancelled")
    elif outcome.error is not None:
        expected = ("failed", outcome.error["code"])

    async def is_said() -> bool:
        said = await place.cache.task_status(outcome.identity)
        if said is None or said.status == "processing":
            return said is None and (outcome.answer is None or outcome.error is not None)  # it had not begun
        return _word(said) == expected or (outcome.answer is None and said.status == "completed")

    await _until(is_said, f"the status is not {expected}")


def _word(status: TaskStatus) -> tuple[str, str | None]:
    return status.status, status.error


async def _check_retry(place: Site, outcome: Outcome, case: Case, fault: Fault, sound: Sound) -> None:
    """The same job again: a result, and one that was made is not made again."""
    again = await place.run(case, outcome.identity)
    assert hashes_of(again) == sound.files
    if outcome.was_made and fault.seam != "volume" and not case.is_inline and not case.has_own_bucket:
        # Without the cache nobody notes a file that the store has and could not link to, the second of its calls.
        is_kept = case.is_cached or (outcome.error is not None and fault.number == 1)
        assert not (is_kept and again.was_made), "a result that was paid for is made again"


async def _until(condition: Any, message: str) -> None:
    try:
        await until(condition, patience_s=PATIENCE_S)
    except TimeoutError:
        raise AssertionError(message) from None


async def _has_no(found: Any) -> bool:
    return not await found


def _is_own(thread: threading.Thread) -> bool:
    return not thread.name.startswith(("asyncio_", "gpu"))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
