"""The queue as a state machine: every state, and every way from one to the next."""

from __future__ import annotations

import pytest

from local_platform.job import Job, Limits, Status
from local_platform.queue import JobQueue, NotAllowed, UnknownJob

LIMITS = Limits(
    execution_timeout_s=100, ttl_s=1000, lease_s=10, run_max_bytes=50, runsync_max_bytes=80, part_max_bytes=20
)


@pytest.fixture(name="queue")
def _queue() -> JobQueue:
    return JobQueue(LIMITS)


def submitted(queue: JobQueue, *ids: str, is_sync: bool = False) -> None:
    for job_id in ids:
        queue.submit(job_id, {"input": {"prompt": job_id}}, now=0, is_sync=is_sync)


def finished(queue: JobQueue, job_id: str, body: dict[str, object], *, worker: str = "w", n_bytes: int = 1) -> bool:
    return queue.finish(job_id, body, worker=worker, n_bytes=n_bytes, now=5)


def status_of(queue: JobQueue, job_id: str) -> Status:
    return queue[job_id].status


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


def test_a_job_goes_through_the_queue(queue: JobQueue) -> None:
    submitted(queue, "a")
    assert status_of(queue, "a") is Status.IN_QUEUE
    taken = queue.take("w", now=2)
    assert [job.to_worker() for job in taken] == [{"id": "a", "input": {"prompt": "a"}}]
    assert status_of(queue, "a") is Status.IN_PROGRESS
    assert finished(queue, "a", {"output": {"images": []}})
    assert queue["a"].to_client(now=9) == {
        "id": "a",
        "status": "COMPLETED",
        "delayTime": 2000,
        "executionTime": 3000,
        "workerId": "w",
        "output": {"images": []},
    }
    assert queue.counts() == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}


@pytest.mark.parametrize(
    ("body", "status", "shown"),
    [
        ({"output": None}, Status.COMPLETED, {"output": None}),
        ({"output": [1]}, Status.COMPLETED, {"output": [1]}),
        ({}, Status.COMPLETED, {}),
        ({"error": "broken"}, Status.FAILED, {"error": "broken"}),
        ({"output": {"kept": 1}, "error": "broken"}, Status.FAILED, {"output": {"kept": 1}, "error": "broken"}),
        ({"output": 1, "stopPod": True}, Status.COMPLETED, {"output": 1}),
    ],
)
def test_a_result_decides_the_state(
    queue: JobQueue, body: dict[str, object], status: Status, shown: dict[str, object]
) -> None:
    submitted(queue, "a")
    queue.take("w", now=1)
    finished(queue, "a", body)
    assert (status_of(queue, "a"), queue["a"].result) == (status, shown)


def test_jobs_are_taken_in_order_and_no_more_than_asked_for(queue: JobQueue) -> None:
    submitted(queue, "a", "b", "c")
    assert [job.id for job in queue.take("one", now=1, count=2)] == ["a", "b"]
    assert [job.id for job in queue.take("two", now=1, count=2)] == ["c"]
    assert queue.take("two", now=1) == []
    assert queue.held_by("one") == ["a", "b"]


def test_a_worker_that_stops_pinging_loses_its_jobs_to_the_head_of_the_queue(queue: JobQueue) -> None:
    submitted(queue, "a", "b", "c")
    queue.take("w", now=0, count=2)
    queue.renew("w", ["a"], now=8)
    assert not queue.expire(now=9)
    assert queue.expire(now=10)
    assert (status_of(queue, "a"), status_of(queue, "b")) == (Status.IN_PROGRESS, Status.IN_QUEUE)
    assert [job.id for job in queue.take("v", now=11, count=2)] == ["b", "c"]
    assert queue["b"].to_client(now=11)["retries"] == 1
    assert kinds(queue["b"]) == ["queued", "taken", "lost", "taken"]
    assert queue.counts()["retried"] == 1


def test_a_heartbeat_renews_only_what_its_worker_holds(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("w", now=0)
    queue.renew("stranger", ["a"], now=9)
    queue.expire(now=10)
    assert status_of(queue, "a") is Status.IN_QUEUE


def test_the_first_result_counts_also_from_a_worker_that_lost_the_job(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("slow", now=0)
    queue.expire(now=10)
    assert finished(queue, "a", {"output": 1}, worker="slow")
    assert status_of(queue, "a") is Status.COMPLETED
    assert queue.take("other", now=11) == []
    assert finished(queue, "a", {"output": 2}, worker="other")
    assert queue["a"].result == {"output": 1}
    assert kinds(queue["a"])[-1] == "late_result"


@pytest.mark.parametrize(
    ("is_sync", "n_bytes", "fits"), [(False, 50, True), (False, 51, False), (True, 80, True), (True, 81, False)]
)
def test_an_oversized_result_completes_without_output(queue: JobQueue, is_sync: bool, n_bytes: int, fits: bool) -> None:
    submitted(queue, "a", is_sync=is_sync)
    queue.take("w", now=0)
    queue.progress("a", {"progress": 0.5}, worker="w", now=1)
    assert finished(queue, "a", {"output": "much"}, n_bytes=n_bytes) is fits
    assert status_of(queue, "a") is Status.COMPLETED
    assert queue["a"].result == ({"output": "much"} if fits else {})


def test_progress_shows_as_output_until_the_result(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("w", now=0)
    queue.progress("a", {"seq": 0}, worker="w", now=1)
    queue.progress("a", {"seq": 1}, worker="w", now=2)
    assert queue["a"].to_client(now=3)["output"] == {"seq": 1}
    assert [event.detail for event in queue["a"].events_of("progress")] == [{"seq": 0}, {"seq": 1}]


def test_progress_after_the_result_leaves_the_job_in_progress(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("w", now=0)
    finished(queue, "a", {"output": "picture"})
    queue.progress("a", {"seq": 9}, worker="w", now=6)
    assert (status_of(queue, "a"), queue["a"].result) == (Status.IN_PROGRESS, {"output": {"seq": 9}})
    queue.expire(now=60)
    assert status_of(queue, "a") is Status.IN_PROGRESS
    queue.expire(now=100)
    assert status_of(queue, "a") is Status.TIMED_OUT


def test_cancelling_stops_the_worker_once(queue: JobQueue) -> None:
    submitted(queue, "a", "b")
    queue.take("w", now=0)
    queue.progress("a", {"seq": 0}, worker="w", now=1)
    queue.cancel("a", now=2)
    queue.cancel("b", now=2)
    assert queue.take_stops("w") == ["a"]
    assert queue.take_stops("w") == []
    assert queue["a"].to_client(now=3)["status"] == "CANCELLED"
    assert "output" not in queue["a"].to_client(now=3)
    assert queue.take("w", now=3) == []
    finished(queue, "a", {"output": "too late"})
    assert status_of(queue, "a") is Status.CANCELLED


def test_cancelling_what_is_finished_changes_nothing(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("w", now=0)
    finished(queue, "a", {"output": 1})
    assert queue.cancel("a", now=6).status is Status.COMPLETED
    assert queue.take_stops("w") == []


def test_time_outs(queue: JobQueue) -> None:
    queue.submit("runs", {"input": {}}, now=0, execution_timeout_s=30)
    queue.take("w", now=5)
    queue.submit("waits", {"input": {}}, now=5, ttl_s=40)
    queue.renew("w", ["runs"], now=34)
    queue.expire(now=34)
    assert status_of(queue, "runs") is Status.IN_PROGRESS
    queue.expire(now=35)
    assert status_of(queue, "runs") is Status.TIMED_OUT
    assert queue.take_stops("w") == ["runs"]
    queue.expire(now=45)
    assert status_of(queue, "waits") is Status.TIMED_OUT
    assert queue.counts()["failed"] == 2


def test_retrying(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("w", now=0)
    finished(queue, "a", {"error": "broken"})
    assert queue.retry("a", now=6).to_client(now=6) == {"id": "a", "status": "IN_QUEUE"}
    queue.take("w", now=7)
    finished(queue, "a", {"output": 1})
    with pytest.raises(NotAllowed, match="COMPLETED"):
        queue.retry("a", now=9)


def test_purging_spares_what_a_worker_has(queue: JobQueue) -> None:
    submitted(queue, "a", "b", "c")
    queue.take("w", now=0)
    assert queue.purge(now=1) == 2
    assert [job.status for job in queue.jobs] == [Status.IN_PROGRESS, Status.CANCELLED, Status.CANCELLED]


def test_parts_are_read_once(queue: JobQueue) -> None:
    submitted(queue, "a")
    queue.take("w", now=0)
    for part in ("one", "two"):
        assert queue.add_part("a", part, worker="w", n_bytes=5, now=1)
    assert not queue.add_part("a", "huge", worker="w", n_bytes=21, now=1)
    assert queue.read_parts("a") == ["one", "two"]
    assert queue.read_parts("a") == []


@pytest.mark.parametrize(("is_sync", "kept_s"), [(True, 60), (False, 1800)])
def test_results_expire(queue: JobQueue, is_sync: bool, kept_s: int) -> None:
    submitted(queue, "a", is_sync=is_sync)
    queue.take("w", now=0)
    finished(queue, "a", {"output": 1})
    queue.expire(now=4 + kept_s)
    assert status_of(queue, "a") is Status.COMPLETED
    queue.expire(now=5 + kept_s)
    with pytest.raises(UnknownJob):
        _ = queue["a"]
    assert queue.counts()["completed"] == 1


def test_each_final_job_is_told_once(queue: JobQueue) -> None:
    submitted(queue, "a", "b")
    queue.take("w", now=0)
    finished(queue, "a", {"output": 1})
    queue.cancel("b", now=6)
    assert [job.id for job in queue.drain_final()] == ["a", "b"]
    assert queue.drain_final() == []
