"""Plans as Markdown tables: all cards and models, profiles side by side, cold starts, and estimates beside published
runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from flux_engine.models.catalog import CATALOG, FLUX_1_DEV, ModelSpec
from flux_engine.models.planning.anchors import ANCHORS, Anchor, card_of
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.gpus import CARDS, short_name
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.models.weights import BUNDLED
from flux_engine.settings import Profile
from flux_engine.units import GIB

SHORT_SCHEMES: Final = {
    "none": "",
    "int8_weight_only": "int8",
    "int8_dynamic": "int8",
    "fp8_tensor": "fp8",
    "fp8_dynamic": "fp8",
}
SHORT_DTYPES: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
TABLE_MODELS: Final = tuple(
    spec for spec in CATALOG if spec.name not in ("FLUX.1-Krea-dev", "FLUX.1-Kontext-dev", *BUNDLED)
)  # Krea and Kontext run as dev does, and flux-tiny runs anywhere


def cards_by_models(profile: Profile) -> Iterator[str]:
    """All cards against all models under one profile."""
    optimizer = ModelOptimizer()
    head = ("GPU", "GiB", *(spec.name for spec in TABLE_MODELS))
    rows = []
    for card in CARDS:
        plans = [(optimizer.plan(card, spec, Preferences(profile=profile)), spec) for spec in TABLE_MODELS]
        rows.append((short_name(card), f"{card.total_bytes / GIB:.1f}", *(_cell(plan, spec) for plan, spec in plans)))
    return _table(head, rows)


def side_by_side(plans: Iterable[Plan], spec: ModelSpec, *, price_per_hour: float | None) -> Iterator[str]:
    """One row a plan."""
    head = ("profile", "runs as", "compiled", "step cache", "GiB", "seconds", "LoRA adds", "cold start, volume")
    rows = []
    for plan in plans:
        row = (
            plan.profile,
            ", ".join(_how(plan, spec)) if plan.fits else "does not fit",
            "yes" if plan.compile else "no",
            f"{plan.step_cache_threshold:g}" if plan.step_cache_threshold else "no",
            f"{plan.peak_bytes / GIB:.1f}",
            _seconds(plan),
            f"{plan.lora_seconds:.1f} s" if plan.lora_seconds else "-",
            f"{cold_start(plan, spec, storage='volume', is_first=False).total:.0f} s",
        )
        rows.append((*row, price_of(plan, price_per_hour)) if price_per_hour else row)
    return _table((*head, "a picture costs") if price_per_hour else head, rows)


def cold_starts() -> Iterator[str]:
    """Of the default profile, by card and model: the first worker on a volume, a later one, a later one on a disk."""
    optimizer = ModelOptimizer()
    rows = []
    for card in CARDS:
        row = [short_name(card)]
        for spec in TABLE_MODELS:
            plan = optimizer.plan(card, spec)
            first = cold_start(plan, spec, storage="volume", is_first=True).total
            later = cold_start(plan, spec, storage="volume", is_first=False).total
            disk = cold_start(plan, spec, storage="disk", is_first=False).total
            row.append(f"{first:.0f}, {later:.0f}, {disk:.0f} s" if plan.fits else "does not fit")
        rows.append(tuple(row))
    return _table(("GPU", *(spec.name for spec in TABLE_MODELS)), rows)


def anchors(*, is_fitted: bool) -> Iterator[str]:
    """Estimates beside published runs: those that the constants were fitted to, or those held out."""
    rows = [_anchor_row(anchor) for anchor in ANCHORS if anchor.is_fitted == is_fitted]
    return _table(("GPU", "run", "estimate", "published", "difference", "source"), rows)


def price_of(plan: Plan, price_per_hour: float) -> str:
    """What a warm picture costs on a card of that price."""
    if plan.seconds is None:
        return "unknown"
    return f"${plan.seconds * price_per_hour / 3600:.4f}"


def _anchor_row(anchor: Anchor) -> tuple[str, ...]:
    estimate = anchor.estimate()
    return (
        short_name(card_of(anchor.card)),
        anchor.describe() if anchor.model is not FLUX_1_DEV else anchor.describe().partition(", ")[2],
        f"{estimate:.2f} s",
        f"{anchor.seconds:g} s",
        f"{estimate / anchor.seconds - 1:+.0%}",
        anchor.source,
    )


def _cell(plan: Plan, spec: ModelSpec) -> str:
    if not plan.fits:
        return "does not fit"
    return ", ".join((*_how(plan, spec), f"{plan.peak_bytes / GIB:.0f} GiB", _seconds(plan)))


def _how(plan: Plan, spec: ModelSpec) -> Iterator[str]:
    transformer = SHORT_SCHEMES[plan.transformer_quantisation]
    text = SHORT_SCHEMES[plan.quantisation_of(spec.largest_text_encoder.name)]
    yield transformer or SHORT_DTYPES[plan.dtype]
    if text and text != transformer:
        yield f"text {text}"
    if plan.offload != "none":
        yield f"{plan.offload} offload"


def _seconds(plan: Plan) -> str:
    if plan.seconds is None:
        return "unknown"
    return f"{plan.seconds:.1f} s" if plan.origin else f"~{plan.seconds:.1f} s"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
