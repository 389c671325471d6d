"""Which of a model's plans a job runs by: the best one that has not run out of memory for as much.

Memory that runs out takes a model one plan down. A later job that needs less is run by the better plan again, and so is
any job after a while: what was short may have been another process's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flux_engine.errors import OutOfMemory
from flux_engine.models.planning.plan import Plan

PATIENCE_JOBS: Final = 8  # run by a leaner plan before the better one is tried again; doubled each time it runs out


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a job needs of the device beside the model: pixels in one call, bytes of LoRAs, and bytes of networks that
    stand beside it while the job runs."""

    pixels: int = 0
    lora_bytes: int = 0
    beside_bytes: int = 0

    def is_less_than(self, other: Demand) -> bool:
        """Whether it needs less of something, and more of nothing."""
        return (
            self != other
            and self.pixels <= other.pixels
            and self.lora_bytes <= other.lora_bytes
            and self.beside_bytes <= other.beside_bytes
        )


class PlanSteps:
    """The plans of one model, best first, and what ran out under them."""

    def __init__(self, best: Plan) -> None:
        self._plans = [best]
        while (below := self._plans[-1].leaner()) is not None:
            self._plans.append(below)
        self._ran_out: dict[int, Demand] = {}  # by plan: the least that it had no room for
        self._current = 0
        self._patience = PATIENCE_JOBS
        self._jobs_left = PATIENCE_JOBS

    @property
    def current(self) -> Plan:
        return self._plans[self._current]

    def plan_for(self, demand: Demand) -> Plan:
        """The plan that `take` would choose."""
        return self._plans[self._index_for(demand)]

    def take(self, demand: Demand) -> Plan:
        """Choose the plan for a job; it is the current one from now on."""
        self._current = self._index_for(demand)
        if self._current > 0:
            self._jobs_left -= 1
        return self.current

    def step_down(self, demand: Demand) -> None:
        """Memory ran out under the current plan for a job of `demand`. Raises OutOfMemory where no plan is leaner."""
        if self._jobs_left <= 0:
            self._patience *= 2
        self._jobs_left = self._patience
        self._ran_out[self._current] = demand
        if self._current + 1 == len(self._plans):
            raise OutOfMemory("the job did not fit even at the leanest setting; ask for a smaller picture")
        self._current += 1

    def give_up_compiling(self, why: str) -> None:
        """Compiled code does not run on this machine: no plan compiles from now on."""
        self._plans = [plan.uncompiled(why) for plan in self._plans]

    def _index_for(self, demand: Demand) -> int:
        if self._jobs_left <= 0 and not demand.beside_bytes:
            return 0
        for index, plan in enumerate(self._plans):
            ran_out = self._ran_out.get(index)
            has_room = demand.beside_bytes <= max(0, plan.limit_bytes - plan.peak_bytes)
            if has_room and (ran_out is None or demand.is_less_than(ran_out)):
                return index
        return len(self._plans) - 1
