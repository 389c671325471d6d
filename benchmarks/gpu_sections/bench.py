"""Running sections one after the other against the clock, and keeping what each finds.

A section that fails is noted and the next one begins; one whose budget is more than the time left is left out. What is
known so far is written after each: a machine that is taken away costs one section.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.gpu_sections.scale import Scale
from flux_engine.models.planning.gpus import GpuProperties

REPORT: Final = "gpu.json"
Outcome = Literal["done", "failed", "no time left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; `reckoned` is what a plan says."""

    section: str
    way: str
    measured: float
    unit: str
    reckoned: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """`run` measures; it is left out where `budget_s` is more than the time left."""

    name: str
    run: Callable[[Bench], None]
    budget_s: float


@dataclass(slots=True)
class Bench:
    """What is measured and what was found."""

    scale: Scale
    gpu: GpuProperties
    folder: Path
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, float | str] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    section: str = ""

    def row(
        self,
        way: str,
        measured: float,
        unit: str,
        *,
        reckoned: float | None = None,
        peak_bytes: int | None = None,
    ) -> None:
        made = Row(
            section=self.section, way=way, measured=measured, unit=unit, reckoned=reckoned, peak_bytes=peak_bytes
        )
        self.rows.append(made)
        _print_json(asdict(made))

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        """A part of a section whose failure costs the others nothing."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever a kernel or a library raises is a finding
            self._note_failure(what, error)
        self._start_afresh()

    def run(self, sections: Sequence[Section], *, seconds: float, constants: Callable[[Bench], dict[str, Any]]) -> None:
        """Run `sections` in their order within `seconds`; `constants` tells what the findings imply so far."""
        ends = time.monotonic() + seconds
        for section in sections:
            began, self.section = time.monotonic(), section.name
            outcome: Outcome = "no time left"
            if ends - began >= section.budget_s:
                outcome = self._outcome_of(section)
            found = {"outcome": outcome, "seconds": round(time.monotonic() - began, 1)}
            self.outcomes[section.name] = self.outcomes.get(section.name, {}) | found
            _print_json({"section": section.name, **self.outcomes[section.name]})
            (self.folder / REPORT).write_text(json.dumps(self.to_dict() | {"constants": constants(self)}, indent=2))
            self._start_afresh()

    def to_dict(self) -> dict[str, Any]:
        return {
            "device": {"name": self.gpu.name, "is_cpu": self.gpu.is_cpu, "bytes": self.gpu.total_bytes},
            "model": self.scale.spec.name,
            "figures": self.figures,
            "rows": [asdict(row) for row in self.rows],
            "sections": self.outcomes,
        }

    def _start_afresh(self) -> None:
        from benchmarks.gpu_sections.clock import fresh_start  # imports torch, which reading a report needs not

        fresh_start()

    def _outcome_of(self, section: Section) -> Outcome:
        try:
            section.run(self)
        except Exception as error:  # noqa: BLE001 - as in `attempt`
            self._note_failure(section.name, error)
        return "failed" if "errors" in self.outcomes.get(section.name, {}) else "done"

    def _note_failure(self, what: str, error: Exception) -> None:
        traceback.print_exception(error, file=sys.stderr)
        line = f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.outcomes.setdefault(self.section, {}).setdefault("errors", []).append(line)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)
