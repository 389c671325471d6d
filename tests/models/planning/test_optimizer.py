"""Plans for cards that are not here, and the rules that no plan breaks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_engine.models.catalog import CATALOG, FLUX_1_DEV, FLUX_1_SCHNELL, FLUX_2_DEV, FLUX_TINY, ModelSpec, find
from flux_engine.models.planning.estimate import host_bytes, part_plans, resident_bytes, slot_bytes, working_bytes
from flux_engine.models.planning.gpus import CARDS, GpuProperties, cpu_machine, find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import DYNAMIC, MIN_CACHED_STEPS, PROFILES, Plan, Preferences
from flux_engine.models.planning.seconds import picture_time
from flux_engine.models.planning.way import Way
from flux_engine.settings import Offload, Profile, Quantisation
from flux_engine.units import GIB

OPTIMIZER = ModelOptimizer()
CAPABILITIES = [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)]


@cache
def plan_by(profile: Profile, gpu: GpuProperties, model: ModelSpec) -> Plan:
    """Several tests look at the plans of all cards and models."""
    return OPTIMIZER.plan(gpu, model, Preferences(profile=profile))


def card(name: str) -> GpuProperties:
    found = find_card(name)
    assert found is not None
    return found


def check_rules(plan: Plan, gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> None:
    schemes = {part.quantisation for part in plan.parts}
    assert plan.compile or not schemes & set(DYNAMIC), "dynamic quantisation only with compilation"
    assert gpu.has_capability(8, 9) or "fp8_dynamic" not in schemes
    assert gpu.is_cpu or gpu.has_capability(8, 0) or plan.dtype != "bfloat16"
    assert model.is_float16_safe or plan.dtype != "float16"
    assert not plan.compile or plan.offload in ("none", "text", "model")
    assert not plan.compile or plan.offload != "model" or plan.transformer_quantisation == "none"
    if plan.step_cache_threshold is not None:
        assert (wishes.num_inference_steps or model.limits.num_inference_steps) >= MIN_CACHED_STEPS
        assert plan.largest_batch == 1
        assert plan.offload in ("none", "text")
    assert plan.dtype != "float16" or not plan.is_quantised
    assert plan.attention[-1] == "native"
    assert 1 <= plan.largest_batch <= max(wishes.max_batch, 1)
    assert plan.fits == (plan.peak_bytes <= plan.limit_bytes and plan.host_bytes <= gpu.host_bytes * 0.9)
    assert plan.limit_bytes <= gpu.free_bytes - min(gpu.total_bytes // 20, 6 * GIB // 10)
    assert plan.fits or "does not" in plan.line()
    assert {"fits", "dtype", "quantisation", "offload", "compile", "step_cache"} <= plan.reasons.keys()
    assert all(plan.reasons.values())
    json.dumps(plan.to_dict(), allow_nan=False)


def ladder(plan: Plan) -> list[Plan]:
    rungs = [plan]
    while (below := rungs[-1].leaner()) is not None:
        rungs.append(below)
    return rungs


@pytest.mark.parametrize("profile", PROFILES)
def test_every_card_has_a_plan_for_every_model(profile: Profile) -> None:
    assert len(CARDS) == 24
    wishes = Preferences(profile=profile)
    for gpu, model in itertools.product(CARDS, CATALOG):
        plan = plan_by(profile, gpu, model)
        is_expected = (gpu.name, model.name) != ("Tesla T4", "FLUX.2-dev")  # 104 GiB in float16, 62 on the host
        assert plan.fits is is_expected, f"{model.name} on {gpu.name}: {plan.reasons['fits']}"
        assert plan.seconds is not None
        assert plan.seconds > 0
        for rung in ladder(plan):
            check_rules(rung, gpu, model, wishes)


@st.composite
def machines(draw: st.DrawFn) -> GpuProperties:
    total = int(draw(st.floats(4, 200)) * GIB)
    capability = draw(st.sampled_from([None, *CAPABILITIES]))
    host_bytes = int(draw(st.floats(8, 400)) * GIB)
    if capability is None:
        return cpu_machine(total_bytes=host_bytes)
    return GpuProperties(
        name="a card",
        compute_capability=capability,
        total_bytes=total,
        free_bytes=int(total * draw(st.floats(0.3, 0.99))),
        host_bytes=host_bytes,
        count=draw(st.sampled_from([1, 1, 2, 8])),
        speed=draw(st.sampled_from([None, CARDS[0].speed, CARDS[-1].speed])),
    )


wishes_of_all_kinds = st.builds(
    Preferences,
    profile=st.sampled_from(PROFILES),
    attention_slicing=st.booleans(),
    compile=st.sampled_from([None, True, False]),
    step_cache=st.sampled_from([None, True, False]),
    quantisation=st.sampled_from([None, "none", "int8_weight_only", *DYNAMIC]),
    text_quantisation=st.sampled_from([None, "none", "int8_weight_only", *DYNAMIC]),
    offload=st.sampled_from([None, "none", "text", "balanced", "model", "group", "sequential"]),
    max_batch=st.integers(1, 4),
    num_inference_steps=st.sampled_from([None, 4, 19, 20, 50]),
    is_kept_warm=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(gpu=machines(), model=st.sampled_from(CATALOG), wishes=wishes_of_all_kinds)
def test_no_card_and_no_wish_breaks_a_rule(gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> None:
    rungs = ladder(OPTIMIZER.plan(gpu, model, wishes))
    for rung in rungs:
        check_rules(rung, gpu, model, wishes)
    peaks = [rung.peak_bytes for rung in rungs]
    assert peaks == sorted(set(peaks), reverse=True), "each rung needs less than the one above"
    assert len(rungs) == 1 or all(rung.fits for rung in rungs)


@settings(max_examples=60, deadline=None)
@given(gpu=machines(), model=st.sampled_from(CATALOG), profile=st.sampled_from(PROFILES), extra=st.integers(1, 64))
def test_more_memory_never_costs_what_fitted_nor_time(
    gpu: GpuProperties, model: ModelSpec, profile: Profile, extra: int
) -> None:
    """`quality` may take longer where the memory lets it give up less precision, `memory` is not after time."""
    larger = replace(gpu, free_bytes=gpu.free_bytes + extra * GIB, total_bytes=gpu.total_bytes + extra * GIB)
    before, after = (OPTIMIZER.plan(one, model, Preferences(profile=profile)) for one in (gpu, larger))
    assert after.fits or not before.fits
    gives_up_less = profile == "quality" and loss_of(after, model) < loss_of(before, model)
    if before.fits and before.seconds is not None and profile != "memory" and not gives_up_less:
        assert after.seconds is not None
        assert after.seconds <= before.seconds


@settings(max_examples=60, deadline=None)
@given(gpu=machines(), model=st.sampled_from(CATALOG))
def test_a_profile_that_allows_more_is_never_slower(gpu: GpuProperties, model: ModelSpec) -> None:
    profiles: tuple[Profile, ...] = ("quality", "balanced", "speed")
    plans = [OPTIMIZER.plan(gpu, model, Preferences(profile=profile)) for profile in profiles]
    for stricter, looser in pairwise(plans):
        assert looser.fits or not stricter.fits
        if stricter.fits and stricter.seconds is not None:
            assert looser.seconds is not None
            assert looser.seconds <= stricter.seconds


def loss_of(plan: Plan, model: ModelSpec) -> int:
    if plan.transformer_quantisation != "none":
        return 2
    return int(plan.quantisation_of(model.largest_text_encoder.name) != "none")


def every_way(gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> Iterator[Way]:
    """All combinations of all choices that the rules allow, by brute force."""
    schemes: tuple[Quantisation, ...] = ("none", "int8_weight_only", "int8_dynamic", "fp8_dynamic")
    offloads: tuple[Offload, ...] = ("none", "text", "model", "group", "sequential", "balanced")
    tiles = {"quality": (2048, 1024, 512), "memory": (512,)}.get(wishes.profile, (1024, 512))
    threshold = {"balanced": 0.08, "speed": 0.12}.get(wishes.profile)
    steps = model.limits.num_inference_steps
    small = model.transformer.parameters < 1e9
    for transformer, text, offload, tile, compiled, cached in itertools.product(
        schemes, schemes[:2], offloads, tiles, (False, True), (False, True)
    ):
        fast = "fp8_dynamic" if gpu.has_capability(8, 9) else "int8_dynamic"
        stays = offload in ("none", "text")
        allowed = (
            transformer in ("none", "int8_weight_only", fast)
            and (transformer not in DYNAMIC or compiled)
            and (not compiled or (wishes.profile != "memory" and not small))
            and (not compiled or stays or (offload == "model" and transformer == "none"))
            and (not compiled or transformer in ("int8_dynamic", "fp8_dynamic") or steps > 8)
            and (not cached or (threshold is not None and steps >= 20 and stays and not model.is_modular))
            and (offload != "balanced" or gpu.count > 1)
        )
        if allowed:
            yield Way(
                dtype="bfloat16",
                transformer=transformer,
                text=text,
                offload=offload,
                tile_side=tile,
                is_compiled=compiled,
                threshold=threshold if cached else None,
            )


def check_best(gpu: GpuProperties, model: ModelSpec, profile: Profile) -> None:
    """The plan costs what the best way costs that a search by brute force finds, or nothing fits in either."""
    assert gpu.speed is not None
    wishes = Preferences(profile=profile)
    plan = plan_by(profile, gpu, model)
    best: tuple[float, ...] | None = None
    for way in every_way(gpu, model, wishes):
        parts = part_plans(model, way)
        resident = resident_bytes(model, parts, way, gpu_count=gpu.count)
        resident += slot_bytes(model, way.dtype) if way.is_compiled else 0
        peak = resident + working_bytes(model, parts, way, pixels=model.limits.max_pixels)
        if peak > plan.limit_bytes or host_bytes(parts, way) > gpu.host_bytes * 0.9:
            continue
        steps, pixels = model.limits.num_inference_steps, model.limits.side**2
        seconds = picture_time(model, gpu.speed, parts, way, steps=steps, pixels=pixels).total
        cost = {
            "quality": (float(way.loss), seconds),
            "memory": (float(way.offload == "sequential"), float(peak)),
        }.get(profile, (seconds,))
        best = cost if best is None else min(best, cost)
    expected = {
        "quality": (float(loss_of(plan, model)), plan.seconds),
        "memory": (float(plan.offload == "sequential"), float(plan.peak_bytes)),
    }.get(profile, (plan.seconds,))
    assert (expected if plan.fits else None) == best, f"{model.name} on {gpu.name}"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plan_is_the_best_that_an_exhaustive_search_finds(profile: Profile) -> None:
    for gpu, model in itertools.product(CARDS, CATALOG):
        if gpu.has_capability(8, 0):
            check_best(gpu, model, profile)


@settings(max_examples=60, deadline=None)
@given(
    gpu=machines(), speed_of=st.sampled_from(CARDS), model=st.sampled_from(CATALOG), profile=st.sampled_from(PROFILES)
)
def test_so_it_is_on_cards_that_nobody_makes(
    gpu: GpuProperties, speed_of: GpuProperties, model: ModelSpec, profile: Profile
) -> None:
    if gpu.has_capability(8, 0):
        check_best(replace(gpu, count=1, speed=speed_of.speed), model, profile)


def test_no_profile_that_allows_more_is_slower_on_any_card() -> None:
    profiles: tuple[Profile, ...] = ("quality", "balanced", "speed")
    for gpu, model in itertools.product(CARDS, CATALOG):
        seconds = [plan_by(profile, gpu, model).seconds or 0.0 for profile in profiles]
        assert seconds == sorted(seconds, reverse=True), f"{model.name} on {gpu.name}"


def test_each_choice_says_what_the_next_best_way_would_have_cost() -> None:
    plan = OPTIMIZER.plan(card("A10G"), FLUX_1_DEV)
    assert set(plan.alternatives) == {"quantisation", "text_quantisation", "offload", "compile", "step_cache", "vae"}
    for choice, other in plan.alternatives.items():
        assert other.seconds is not None
        assert plan.seconds is not None
        assert other.seconds >= plan.seconds, choice
        assert f"next best: {other.value}, {other.seconds:.1f} s" in plan.reasons[choice]
    assert plan.to_dict()["alternatives"]["offload"]["value"] == plan.alternatives["offload"].value


def test_quality_says_where_it_gives_up_precision() -> None:
    plan = OPTIMIZER.plan(card("L40S"), FLUX_2_DEV, Preferences(profile="quality"))
    assert plan.is_quantised
    assert "no way without loss fits" in plan.reasons["precision"]
    assert "precision" not in OPTIMIZER.plan(card("H200"), FLUX_2_DEV, Preferences(profile="quality")).reasons


@pytest.mark.parametrize(("is_kept_warm", "is_compiled"), [(False, False), (True, True)])
def test_few_steps_are_compiled_where_the_worker_is_kept_warm(is_kept_warm: bool, is_compiled: bool) -> None:
    wishes = Preferences(profile="quality", is_kept_warm=is_kept_warm)
    assert OPTIMIZER.plan(card("H200"), FLUX_1_SCHNELL, wishes).compile is is_compiled
    assert OPTIMIZER.plan(card("H200"), FLUX_1_DEV, wishes).compile


@pytest.mark.parametrize(
    ("name", "model", "profile", "expected"),
    [
        ("A10G", FLUX_1_DEV, "speed", {"transformer_quantisation": "int8_dynamic", "compile": True, "offload": "none"}),
        ("RTX 4090", FLUX_1_DEV, "speed", {"transformer_quantisation": "fp8_dynamic", "offload": "none"}),
        ("H200", FLUX_1_DEV, "balanced", {"transformer_quantisation": "fp8_dynamic", "step_cache_threshold": 0.08}),
        ("H200", FLUX_1_DEV, "quality", {"is_quantised": False, "step_cache_threshold": None, "compile": True}),
        ("B200", FLUX_1_DEV, "speed", {"transformer_quantisation": "fp8_dynamic", "step_cache_threshold": 0.12}),
        ("T4", FLUX_1_SCHNELL, "balanced", {"dtype": "float16", "is_quantised": False, "offload": "group"}),
        ("T4", FLUX_2_DEV, "balanced", {"fits": False}),  # 62 GiB of host memory do not hold it in float16
        ("RTX A4000", FLUX_2_DEV, "balanced", {"offload": "sequential"}),  # nor pinned in int8
        ("RTX 4080", FLUX_1_DEV, "balanced", {"offload": "text", "compile": True, "lora_mode": "slot"}),
        ("RTX 5090", FLUX_1_SCHNELL, "quality", {"offload": "text", "is_quantised": False}),
        ("H100 80GB HBM3", FLUX_2_DEV, "quality", {"offload": "text", "is_quantised": False, "compile": True}),
        ("A100 80GB", FLUX_1_DEV, "memory", {"transformer_quantisation": "int8_weight_only", "compile": False}),
        ("A10G", FLUX_TINY, "speed", {"is_quantised": False, "compile": False}),
    ],
)
def test_plans_of_known_cards(name: str, model: ModelSpec, profile: Profile, expected: dict[str, object]) -> None:
    plan = OPTIMIZER.plan(card(name), model, Preferences(profile=profile))
    assert {field: getattr(plan, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("wishes", "choice", "says"),
    [
        (Preferences(attention_slicing=True), "attention_slicing", "VAE is sliced and tiled"),
        (Preferences(quantisation="fp8_dynamic"), "declined_quantisation", "fp8_dynamic needs"),
        (Preferences(offload="balanced"), "declined_offload", "balanced cannot run"),
        (Preferences(compile=True, offload="group"), "declined_compile", "not together"),
        (Preferences(step_cache=True, num_inference_steps=10), "declined_step_cache", "from 20 steps"),
    ],
)
def test_a_wish_that_breaks_a_rule_is_declined_with_a_reason(wishes: Preferences, choice: str, says: str) -> None:
    assert says in OPTIMIZER.plan(card("A100 80GB"), FLUX_1_DEV, wishes).reasons[choice]


def test_profiles_that_paint_differently_never_share_a_result() -> None:
    """A step cache, a quantised part or a smaller tile can be seen; the card and its attention kernel cannot."""
    for gpu in CARDS:
        for model in CATALOG:
            plans = [plan_by(profile, gpu, model) for profile in PROFILES]
            seen = {(p.dtype, tuple((q.component, q.quantisation) for q in p.parts), p.step_cache_threshold,
                     p.vae_tile_side) for p in plans}  # fmt: skip
            assert len({(plan.precision, plan.pixel_way) for plan in plans}) == len(seen)
    shared: dict[Profile, tuple[str, ...]] = {
        "quality": ("A100 80GB", "H100 PCIe", "H200"),
        "balanced": ("L40S", "H100 PCIe", "H200"),
    }
    for profile, names in shared.items():
        plans = [OPTIMIZER.plan(card(name), FLUX_1_DEV, Preferences(profile=profile)) for name in names]
        assert len({plan.pixel_way for plan in plans}) == 1


def test_several_cards_share_a_model_that_one_does_not_hold() -> None:
    pair = replace(card("A100 80GB"), count=2, host_bytes=40 * GIB)
    plan = OPTIMIZER.plan(pair, FLUX_2_DEV, Preferences(profile="quality"))
    assert (plan.offload, plan.is_quantised, plan.compile) == ("balanced", False, False)


def test_nothing_fits_on_a_card_without_memory() -> None:
    small = replace(card("T4"), total_bytes=2 * GIB, free_bytes=GIB)
    plan = OPTIMIZER.plan(small, FLUX_1_DEV)
    assert not plan.fits
    assert plan.leaner() is None
    assert "nothing fits" in plan.reasons["fits"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("flux.1-DEV", "FLUX.1-dev"),
        ("black-forest-labs/FLUX.1-schnell", "FLUX.1-schnell"),
        ("krea", "FLUX.1-Krea-dev"),
        ("klein", "FLUX.2-klein-4B"),
        ("flux-tiny", "flux-tiny"),
    ],
)
def test_models_are_found_by_any_of_their_names(written: str, name: str) -> None:
    spec = find(written)
    assert spec is not None
    assert spec.name == name
    assert spec.limits.id == spec.id


def test_names_in_the_catalogue_mean_one_model_each() -> None:
    names = [name.casefold() for spec in CATALOG for name in {spec.name, spec.id, *spec.aliases}]
    assert len(names) == len(set(names))
    assert find("FLUX.9") is None
