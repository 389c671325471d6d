"""Plans for cards that are not here, and the rules that no plan breaks."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_engine.models.catalog import CATALOG, FLUX_1_DEV, FLUX_1_SCHNELL, FLUX_2_DEV, FLUX_TINY, ModelSpec, find
from flux_engine.models.planning.gpus import CARDS, GpuProperties, cpu_machine, find_card, short_name
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import DYNAMIC, MIN_CACHED_STEPS, PROFILES, Plan, Preferences
from flux_engine.settings import Profile
from flux_engine.units import GIB

OPTIMIZER = ModelOptimizer()
CAPABILITIES = [(7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)]


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
    assert not plan.compile or plan.offload in ("none", "model")
    assert not plan.compile or plan.offload == "none" or plan.transformer_quantisation == "none"
    if plan.step_cache_threshold is not None:
        assert (wishes.num_inference_steps or model.limits.num_inference_steps) >= MIN_CACHED_STEPS
        assert plan.largest_batch == 1
        assert plan.offload == "none"
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
        plan = OPTIMIZER.plan(gpu, model, wishes)
        is_expected = (gpu.name, model.name) != ("Tesla T4", "FLUX.2-dev")  # 104 GiB in float16, of 62 on the host
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
    offload=st.sampled_from([None, "none", "balanced", "model", "group", "sequential"]),
    max_batch=st.integers(1, 4),
    num_inference_steps=st.sampled_from([None, 4, 19, 20, 50]),
)


@settings(max_examples=400, deadline=None)
@given(gpu=machines(), model=st.sampled_from(CATALOG), wishes=wishes_of_all_kinds)
def test_no_card_and_no_wish_breaks_a_rule(gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> None:
    rungs = ladder(OPTIMIZER.plan(gpu, model, wishes))
    for rung in rungs:
        check_rules(rung, gpu, model, wishes)
    peaks = [rung.peak_bytes for rung in rungs]
    assert peaks == sorted(set(peaks), reverse=True), "each rung needs less than the one above"
    assert len(rungs) == 1 or all(rung.fits for rung in rungs)


@settings(max_examples=100, deadline=None)
@given(gpu=machines(), model=st.sampled_from(CATALOG), profile=st.sampled_from(PROFILES))
def test_more_memory_never_makes_what_fitted_not_fit(gpu: GpuProperties, model: ModelSpec, profile: Profile) -> None:
    larger = replace(gpu, free_bytes=gpu.free_bytes + 8 * GIB, total_bytes=gpu.total_bytes + 8 * GIB)
    wishes = Preferences(profile=profile)
    assert OPTIMIZER.plan(larger, model, wishes).fits or not OPTIMIZER.plan(gpu, model, wishes).fits


@pytest.mark.parametrize(
    ("name", "model", "profile", "expected"),
    [
        ("A10G", FLUX_1_DEV, "speed", {"transformer_quantisation": "int8_dynamic", "compile": True, "offload": "none"}),
        ("RTX 4090", FLUX_1_DEV, "speed", {"transformer_quantisation": "fp8_dynamic", "offload": "none"}),
        ("H200", FLUX_1_DEV, "balanced", {"is_quantised": False, "offload": "none", "compile": True}),
        ("H200", FLUX_1_DEV, "quality", {"is_quantised": False, "step_cache_threshold": None}),
        ("B200", FLUX_1_DEV, "speed", {"transformer_quantisation": "fp8_dynamic"}),
        ("T4", FLUX_1_SCHNELL, "balanced", {"dtype": "float16", "is_quantised": False, "offload": "group"}),
        ("T4", FLUX_2_DEV, "balanced", {"fits": False}),  # 62 GiB of host memory do not hold it in float16
        ("RTX A4000", FLUX_2_DEV, "balanced", {"offload": "sequential"}),  # nor pinned in int8
        ("RTX 4080", FLUX_1_DEV, "balanced", {"offload": "model", "compile": False}),
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
            plans = [OPTIMIZER.plan(gpu, model, Preferences(profile=profile)) for profile in PROFILES]
            seen = {(p.dtype, tuple((q.component, q.quantisation) for q in p.parts), p.step_cache_threshold,
                     p.vae_tile_side) for p in plans}  # fmt: skip
            assert len({(plan.precision, plan.pixel_way) for plan in plans}) == len(seen)
    ways = {OPTIMIZER.plan(card(name), FLUX_1_DEV).pixel_way for name in ("A100 80GB", "H100", "H200")}
    assert len(ways) == 1


def test_several_cards_share_a_model_that_one_does_not_hold() -> None:
    pair = replace(card("A100 80GB"), count=2)
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
        ("a10g", "A10G"),
        ("A10", "A10"),
        ("rtx 4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB HBM3"),
        ("l4", "L4"),
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell"),
    ],
)
def test_cards_are_found_by_the_names_people_write(written: str, name: str) -> None:
    assert short_name(card(written)) == name


@pytest.mark.parametrize("written", ["", "GTX 970", "---"])
def test_an_unknown_card_is_not_guessed(written: str) -> None:
    assert find_card(written) is None


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
