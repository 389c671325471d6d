"""The platform's queue of one endpoint: a state machine without a clock, a socket or a thread.

    submit -> IN_QUEUE --take--> IN_PROGRESS --finish--> COMPLETED | FAILED
                 ^                    |
                 '---- lease lost ----+--cancel--> CANCELLED   (the worker gets a stop signal)
                                      '--expire--> TIMED_OUT   (likewise)

Every method that depends on time takes `now`. A job id that is not known, or no longer, raises UnknownJob.
It does as the platform was seen to do, also where that is unkind: progress that arrives after the result reopens the
job, and a result over the size limit completes it without output.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection
from dataclasses import replace

from local_platform.job import Job, JsonObject, Limits, Status


class UnknownJob(Exception):
    """No job has this id, or its result has expired."""


class NotAllowed(Exception):
    """The operation does not fit the job's state."""


class JobQueue:
    """All jobs of an endpoint, oldest first."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[str] = deque()
        self._stops: defaultdict[str, list[str]] = defaultdict(list)
        self._newly_final: list[str] = []
        self._totals: Counter[str] = Counter()

    # ------------------------------------------------------------------------------------ looking

    def __getitem__(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise UnknownJob(job_id)
        return self._jobs[job_id]

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(self._jobs.values())

    def held_by(self, worker: str) -> list[str]:
        """Ids of the jobs that `worker` is at work on."""
        return [job.id for job in self._jobs.values() if job.worker == worker and job.status is Status.IN_PROGRESS]

    def counts(self) -> dict[str, int]:
        """The `jobs` of `/health`; the finished ones are counted since the start, whether still kept or not."""
        now = Counter(job.status for job in self._jobs.values())
        return {
            "completed": self._totals[Status.COMPLETED],
            "failed": self._totals[Status.FAILED] + self._totals[Status.TIMED_OUT],
            "inProgress": now[Status.IN_PROGRESS],
            "inQueue": now[Status.IN_QUEUE],
            "retried": self._totals["retried"],
        }

    def drain_final(self) -> list[Job]:
        """The jobs that became final since the last call, for their webhooks."""
        ids, self._newly_final = self._newly_final, []
        return [self._jobs[job_id] for job_id in ids if job_id in self._jobs]

    # ------------------------------------------------------------------------------------ clients

    def submit(
        self,
        job_id: str,
        payload: JsonObject,
        *,
        now: float,
        is_sync: bool = False,
        execution_timeout_s: float | None = None,
        ttl_s: float | None = None,
    ) -> Job:
        if job_id in self._jobs:
            raise NotAllowed(f"job {job_id} exists")
        job = Job(
            id=job_id,
            payload=payload,
            is_sync=is_sync,
            submitted_at=now,
            execution_timeout_s=execution_timeout_s or self.limits.execution_timeout_s,
            ttl_s=ttl_s or self.limits.ttl_s,
        )
        self._waiting.append(job_id)
        return self._put(job.with_event("queued", now))

    def cancel(self, job_id: str, *, now: float) -> Job:
        """Take a job back. One that is finished stays as it is."""
        job = self[job_id]
        return job if job.status.is_final else self._end(job, Status.CANCELLED, now)

    def retry(self, job_id: str, *, now: float) -> Job:
        """Queue a failed or timed-out job again under its id. Raises NotAllowed for any other."""
        job = self[job_id]
        if job.status not in (Status.FAILED, Status.TIMED_OUT):
            raise NotAllowed(f"a job that is {job.status} cannot be retried")
        self._waiting.append(job_id)
        fresh = replace(
            job, status=Status.IN_QUEUE, submitted_at=now, started_at=None, finished_at=None, worker=None, result={}
        )
        return self._put(fresh.with_event("queued", now))

    def purge(self, *, now: float) -> int:
        """Cancel every job that no worker has taken; returns how many."""
        waiting = tuple(self._waiting)
        for job_id in waiting:
            self._end(self._jobs[job_id], Status.CANCELLED, now)
        return len(waiting)

    def read_parts(self, job_id: str) -> list[object]:
        """The streamed parts that no client has read yet."""
        job = self[job_id]
        self._put(replace(job, parts_read=len(job.parts)))
        return list(job.parts[job.parts_read :])

    # ------------------------------------------------------------------------------------ workers

    def take(self, worker: str, *, now: float, count: int = 1) -> list[Job]:
        """Hand up to `count` jobs to `worker`, each with a lease."""
        taken: list[Job] = []
        while self._waiting and len(taken) < count:
            job = self._jobs[self._waiting.popleft()]
            started = replace(
                job,
                status=Status.IN_PROGRESS,
                worker=worker,
                started_at=now,
                lease_until=now + self.limits.lease_s,
                attempts=job.attempts + 1,
            )
            taken.append(self._put(started.with_event("taken", now, worker)))
        return taken

    def renew(self, worker: str, job_ids: Collection[str], *, now: float) -> None:
        """A heartbeat: the leases of those of `job_ids` that `worker` holds begin anew."""
        for job_id in self.held_by(worker):
            if job_id in job_ids:
                self._put(replace(self._jobs[job_id], lease_until=now + self.limits.lease_s))

    def take_stops(self, worker: str) -> list[str]:
        """The jobs that `worker` must stop, each told once."""
        return self._stops.pop(worker, [])

    def progress(self, job_id: str, output: object, *, worker: str, now: float) -> Job:
        job = self[job_id]
        if job.status is Status.IN_PROGRESS:
            return self._put(replace(job, result={"output": output}).with_event("progress", now, worker, output))
        if job.status in (Status.COMPLETED, Status.FAILED):
            reopened = replace(job, status=Status.IN_PROGRESS, lease_until=float("inf"), result={"output": output})
            return self._put(reopened.with_event("late_progress", now, worker, output))
        return self._put(job.with_event("late_progress", now, worker, output))

    def add_part(self, job_id: str, output: object, *, worker: str, n_bytes: int, now: float) -> bool:
        """A part of a streamed result; False where it is over the limit and was dropped."""
        job = self[job_id]
        if n_bytes > self.limits.part_max_bytes:
            self._put(job.with_event("oversized", now, worker))
            return False
        self._put(replace(job, parts=(*job.parts, output)).with_event("part", now, worker))
        return True

    def finish(self, job_id: str, body: JsonObject, *, worker: str, n_bytes: int, now: float) -> bool:
        """A result; the first one counts, from whichever worker. False where it is over the limit: the job is then
        COMPLETED without output."""
        job = self[job_id]
        is_oversized = n_bytes > self.limits.max_bytes(is_sync=job.is_sync)
        if job.status.is_final:
            self._put(job.with_event("late_result", now, worker))
        elif is_oversized:
            self._end(replace(job, result={}).with_event("oversized", now, worker), Status.COMPLETED, now)
        else:
            result = {key: body[key] for key in ("output", "error") if key in body}
            told = replace(job, worker=worker, result=result).with_event("result", now, worker)
            self._end(told, Status.FAILED if body.get("error") else Status.COMPLETED, now)
        return not is_oversized

    # --------------------------------------------------------------------------------------- time

    def expire(self, *, now: float) -> bool:
        """Let time-outs, leases and retention take effect; returns whether anything changed."""
        is_changed = False
        for job in self.jobs:
            is_changed = self._expire_one(job, now) or is_changed
        return is_changed

    def _expire_one(self, job: Job, now: float) -> bool:
        if job.status.is_final:
            return self._forget(job, now)
        if now - job.submitted_at >= job.ttl_s:
            self._end(replace(job, result={"error": "the job's ttl ran out"}), Status.TIMED_OUT, now)
        elif job.started_at is not None and now - job.started_at >= job.execution_timeout_s:
            self._end(replace(job, result={"error": "execution timeout exceeded"}), Status.TIMED_OUT, now)
        elif job.status is Status.IN_PROGRESS and now >= job.lease_until:
            self._lose(job, now)
        else:
            return False
        return True

    def _forget(self, job: Job, now: float) -> bool:
        """Drop a finished job once its result has been kept for long enough."""
        if job.finished_at is None or now - job.finished_at < self.limits.retention_s(is_sync=job.is_sync):
            return False
        del self._jobs[job.id]
        return True

    def _lose(self, job: Job, now: float) -> None:
        """The worker is gone: the job stands at the head of the queue again."""
        self._totals["retried"] += 1
        self._waiting.appendleft(job.id)
        queued = replace(job, status=Status.IN_QUEUE, worker=None, started_at=None, result={})
        self._put(queued.with_event("lost", now, job.worker))

    def _end(self, job: Job, status: Status, now: float) -> Job:
        if job.id in self._waiting:
            self._waiting.remove(job.id)
        if status in (Status.CANCELLED, Status.TIMED_OUT):
            if job.worker is not None and job.status is Status.IN_PROGRESS:
                self._stops[job.worker].append(job.id)
            job = job.with_event("cancelled" if status is Status.CANCELLED else "timed_out", now, job.worker)
            job = replace(job, result={key: value for key, value in job.result.items() if key != "output"})
        self._totals[status] += 1
        self._newly_final.append(job.id)
        return self._put(replace(job, status=status, finished_at=now))

    def _put(self, job: Job) -> Job:
        self._jobs[job.id] = job
        return job
