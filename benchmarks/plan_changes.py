"""What the search by cost and the fit to published runs changed: earlier tables of docs/gpus.md against plans of now.

    git show dab7170:docs/gpus.md | python -m benchmarks.plan_changes > docs/plan-changes.md

Plans are arithmetic, so this runs in seconds on any machine. The earlier figures are those of the ladder that the
search replaced; a cell is shown where its seconds differ by more than a fifth.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from flux_engine.cli.plan_tables import cards_by_models
from flux_engine.models.catalog import FLUX_1_DEV, find
from flux_engine.models.planning.anchors import ANCHORS, Anchor, card_of
from flux_engine.models.planning.gpus import find_card, short_name
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import PROFILES, Plan, Preferences
from flux_engine.settings import Profile
from flux_engine.units import GIB

LEAST_CHANGE: Final = 0.2
SECONDS: Final = re.compile(r"~?([0-9.]+) s$")
HEADING: Final = re.compile(r"^## PROFILE=(\w+)$")


@dataclass(frozen=True, slots=True)
class Streamed:
    """A card that had to move the whole model, where streaming the text encoder alone is enough."""

    card: str
    model: str
    profile: Profile
    before: str
    seconds: float


STREAMED: Final = (
    Streamed("RTX A4500", "FLUX.1-dev", "balanced", "int8 weight-only, model offload", 80.6),
    Streamed("RTX 4000 Ada", "FLUX.1-dev", "balanced", "int8 weight-only, model offload", 95.5),
    Streamed("RTX 4080", "FLUX.1-dev", "balanced", "int8 weight-only, model offload", 79.3),
    Streamed("A10G", "FLUX.2-klein-9B", "balanced", "int8 weight-only, model offload", 31.8),
    Streamed("L4", "FLUX.2-klein-9B", "balanced", "int8 weight-only, model offload", 26.2),
    Streamed("RTX 4090", "FLUX.2-klein-9B", "balanced", "int8 weight-only, model offload", 24.2),
    Streamed("L40S", "FLUX.2-dev", "balanced", "int8, model offload", 120.8),
    Streamed("A100-SXM4-40GB", "FLUX.2-dev", "balanced", "int8, sequential offload", 515.0),
    Streamed("H100 80GB HBM3", "FLUX.2-dev", "quality", "bf16, model offload", 127.0),
)
# By card and way: what plans said before, where it had been compared with published runs.
BEFORE: Final[Mapping[tuple[str, str], float]] = {
    ("H100 80GB HBM3", "bf16, compiled"): 3.87,
    ("H100 80GB HBM3", "bf16, eager"): 5.30,
    ("H100 80GB HBM3", "fp8, compiled"): 2.34,
    ("H100 80GB HBM3", "fp8, compiled, with a LoRA"): 2.34,
    ("H100 80GB HBM3", "int8, compiled"): 2.34,
    ("H200", "bf16, compiled"): 3.87,
    ("H200", "bf16, compiled, step cache"): 2.3,
    ("A100 80GB PCIe", "bf16, compiled"): 12.3,
    ("A100 80GB PCIe", "bf16, eager"): 16.8,
    ("L40S", "bf16, compiled"): 10.6,
    ("L40S", "bf16, eager"): 14.5,
    ("L40S", "fp8, compiled"): 6.33,
    ("B200", "bf16, eager"): 2.33,
    ("B200", "bf16, compiled"): 1.70,
    ("B200", "fp8, compiled"): 1.03,
    ("RTX 4090", "fp8, compiled"): 14.0,
    ("RTX 4090", "fp8, compiled, with a LoRA"): 14.0,
    ("RTX 4090", "bf16, compiled, model offload, with a LoRA"): 56.9,
    ("RTX 4090", "bf16, eager, model offload, with a LoRA"): 65.5,
    ("RTX 6000 Ada", "fp8, compiled"): 6.35,
    ("RTX 5090", "FLUX.2-klein-4B, bf16, eager"): 0.89,
}
HEAD: Final = """# What changed in the plans

Made by `git show dab7170:docs/gpus.md | python -m benchmarks.plan_changes`: the ladder of fixed plans before, and the
search by cost with estimates fitted to published runs now. All figures are estimates.
"""
OF_STREAMED: Final = """## Cards that moved the whole model for each picture

All or all but the largest text encoder stays on them now. Every step is computed, as the figures before were.
"""
OF_ANCHORS: Final = """## Estimates beside published runs

Before and now, for each published run. The constants were fitted to the first list, within 15 %:
"""
OF_HELD_OUT: Final = """Held out, within 30 %:
"""
NOT_COMPARED: Final = """An RTX 5090 in 8 bits (11.0 s before, 5.53 s published by TheStageAI) is in neither list: the
published run is beyond the card's peak with float32 accumulation, so its kernels accumulate in half precision. A B200
against an H200 on FLUX.2-dev was 2.3 times as fast before, {now:.1f} times now, and 1.7 times by NVIDIA.
"""
OF_CELLS: Final = """## Cells of docs/gpus.md that differ by more than 20 %

{count} of {total} cells. Longer times before the search are mostly offloads that it avoids; longer ones now are mostly
estimates that were below anything published.
"""


def main() -> int:
    """Print the page; the earlier one comes by standard input."""
    earlier = cells_of(sys.stdin.read().splitlines())
    if not earlier:
        sys.stderr.write("give an earlier docs/gpus.md by standard input\n")
        return 2
    print("\n".join(page(earlier)))
    return 0


def page(earlier: Mapping[tuple[str, str, str], str]) -> Iterator[str]:
    """The whole page, line by line, from the cells of an earlier one by profile, card and model."""
    yield HEAD
    yield OF_STREAMED
    yield from _streamed()
    yield f"\n{OF_ANCHORS}"
    yield from _anchors(is_fitted=True)
    yield f"\n{OF_HELD_OUT}"
    yield from _anchors(is_fitted=False)
    yield "\n" + NOT_COMPARED.format(now=_gain_of_a_b200())
    now: dict[tuple[str, str, str], str] = {}
    for profile in PROFILES:
        now |= cells_of([f"## PROFILE={profile}", *cards_by_models(profile)])
    changed = {key: cell for key, cell in now.items() if key in earlier and _differs(earlier[key], cell)}
    yield OF_CELLS.format(count=len(changed), total=len(now))
    yield from _table_head("profile", "GPU", "model", "before", "now")
    for key, cell in changed.items():
        yield "| " + " | ".join((*key, earlier[key], cell)) + " |"


def cells_of(lines: list[str]) -> dict[tuple[str, str, str], str]:
    """The cells of a page's tables of plans by profile, card and model."""
    found: dict[tuple[str, str, str], str] = {}
    profile, models = "", list[str]()
    for line in lines:
        if heading := HEADING.match(line):
            profile = heading[1]
        elif line.startswith("## "):
            profile = ""
        elif profile and line.startswith("| "):
            card, _, *cells = line.strip("| ").split(" | ")
            if card == "GPU":
                models = cells
            else:
                found |= {(profile, card, model): cell for model, cell in zip(models, cells, strict=True)}
    return found


def _differs(before: str, now: str) -> bool:
    one, other = SECONDS.search(before), SECONDS.search(now)
    if one is None or other is None:
        return before != now
    return abs(float(other[1]) / float(one[1]) - 1) > LEAST_CHANGE


def _streamed() -> Iterator[str]:
    yield from _table_head("GPU", "model", "before", "now", "GiB", "times as fast")
    for one in STREAMED:
        gpu, model = find_card(one.card), find(one.model)
        assert gpu is not None, one
        assert model is not None, one
        plan = ModelOptimizer().plan(gpu, model, Preferences(profile=one.profile, step_cache=False))
        assert plan.seconds is not None
        name = one.model + (f", {one.profile}" if one.profile != "balanced" else "")
        before = f"{one.before}, {one.seconds:g} s"
        memory = f"{plan.peak_bytes / GIB:.1f} of {plan.limit_bytes / GIB:.1f}"
        ours = f"{_how(plan)}, {plan.seconds:.1f} s"
        yield f"| {one.card} | {name} | {before} | {ours} | {memory} | {one.seconds / plan.seconds:.1f} |"


def _how(plan: Plan) -> str:
    scheme = plan.transformer_quantisation
    words = (
        "bf16" if scheme == "none" else scheme.replace("_", " "),
        f"{plan.offload} offload" if plan.offload != "none" else "",
        "compiled" if plan.compile else "",
    )
    return ", ".join(word for word in words if word)


def _anchors(*, is_fitted: bool) -> Iterator[str]:
    yield from _table_head("GPU", "run", "before", "now", "published", "before is off by", "now is off by", "source")
    for anchor in ANCHORS:
        if anchor.is_fitted == is_fitted:
            yield _anchor_row(anchor)


def _anchor_row(anchor: Anchor) -> str:
    card = short_name(card_of(anchor.card))
    way = anchor.describe() if anchor.model is not FLUX_1_DEV else anchor.describe().partition(", ")[2]
    before, now = BEFORE.get((card, way)), anchor.estimate()
    cells = (
        card,
        way,
        f"{before:g} s" if before is not None else "-",
        f"{now:.2f} s",
        f"{anchor.seconds:g} s",
        f"{before / anchor.seconds - 1:+.0%}" if before is not None else "-",
        f"{now / anchor.seconds - 1:+.0%}",
        anchor.source,
    )
    return "| " + " | ".join(cells) + " |"


def _gain_of_a_b200() -> float:
    seconds = []
    for name in ("H200", "B200"):
        gpu, model = find_card(name), find("FLUX.2-dev")
        assert gpu is not None
        assert model is not None
        seconds.append(ModelOptimizer().plan(gpu, model, Preferences(profile="quality")).seconds or 0.0)
    return seconds[0] / seconds[1]


def _table_head(*names: str) -> Iterator[str]:
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)


if __name__ == "__main__":
    sys.exit(main())
