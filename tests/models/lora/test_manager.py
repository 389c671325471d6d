"""LoRAManager: what acts is what the job asked for, and nothing is left for the next one."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torchao.quantization import quantize_

from flux_engine.errors import JobCancelled, LoraInvalid
from flux_engine.models.lora.format import PreparedLora
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.lora.names import linear_shapes
from flux_engine.models.planning.plan import LoraMode
from flux_engine.models.tuning.quantisation import torchao_config
from tests.models.tiny import flux1_transformer, flux2_transformer, forward, pipeline_of, random_lora

MODES: list[LoraMode] = ["adapters", "slot"]
MODELS = [flux1_transformer, flux2_transformer]


def merged(transformer: Any, *loras: ScaledLora) -> Tensor:
    """The forward pass of a copy whose weights hold the LoRAs: the truth that both modes have to meet."""
    changed = copy.deepcopy(transformer)
    for item in loras:
        for name, layer in item.lora.layers.items():
            changed.get_submodule(name).weight.data += item.scale * (layer.up.float() @ layer.down.float())
    return forward(changed)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("mode", MODES)
def test_what_acts_is_the_sum_of_the_loras_at_their_scales(make: Callable[[], Any], mode: LoraMode) -> None:
    transformer = make()
    one, two = random_lora(transformer, seed=1), random_lora(transformer, seed=2, rank=7, only="attn")
    wanted = [
        [ScaledLora(one, 1.0)],
        [ScaledLora(one, -0.5)],
        [ScaledLora(one, 0.7), ScaledLora(two, 1.2)],
        [ScaledLora(two, 1.0)],
        [ScaledLora(one, 0.25), ScaledLora(one, 0.25)],
    ]
    expected = [merged(transformer, *loras) for loras in wanted]
    plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager(mode=mode)
    for loras, truth in zip(wanted, expected, strict=True):
        manager.apply(pipeline, loras)
        assert (forward(transformer) - truth).abs().max() < 1e-5
        assert (truth - plain).abs().max() > 0.01
    manager.apply(pipeline)
    assert torch.equal(forward(transformer), plain)


@pytest.mark.parametrize("make", [flux1_transformer, pytest.param(flux2_transformer, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", MODES)
def test_bytes_after_a_hundred_random_jobs_are_those_of_a_worker_that_never_saw_a_lora(
    make: Callable[[], Any], mode: LoraMode
) -> None:
    transformer = make()
    plain = forward(transformer).numpy().tobytes()
    loras = [random_lora(transformer, seed=i, rank=1 + i, only="attn" if i % 2 else "") for i in range(6)]
    pipeline, rng = pipeline_of(transformer), random.Random(0)
    manager = LoRAManager(mode=mode, slot_rank=16, max_resident_bytes=2 * loras[4].num_bytes)
    for _ in range(100):
        chosen = rng.sample(loras, rng.randint(0, 3))
        manager.apply(pipeline, [ScaledLora(lora, rng.choice((-1.0, 0.0, 0.5, 1.0))) for lora in chosen])
    manager.apply(pipeline, [ScaledLora(loras[3], 0.0)])
    assert forward(transformer).numpy().tobytes() == plain


def dora(transformer: Any, *, seed: int = 1, only: str = "attn.to_q") -> PreparedLora:
    """A DoRA whose magnitudes are not those of the weights."""
    lora = random_lora(transformer, seed=seed, only=only)
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: replace(layer, magnitude=torch.rand(len(layer.up), generator=generator) + 0.5)
        for name, layer in lora.layers.items()
    }
    return replace(lora, layers=layers, content_hash=f"dora-{seed}")


def with_dora(transformer: Any, lora: PreparedLora, scale: float, *others: ScaledLora) -> Tensor:
    """The forward pass of a copy whose weights hold the DoRA, by its definition."""
    changed = copy.deepcopy(transformer)
    for name, layer in lora.layers.items():
        assert layer.magnitude is not None
        weight = changed.get_submodule(name).weight
        directed = weight.data + scale * (layer.up @ layer.down)
        weight.data = layer.magnitude[:, None] * directed / directed.norm(dim=1, keepdim=True)
    return merged(changed, *others)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("scale", [1.0, 0.4, -1.0])
def test_a_dora_is_applied_by_its_definition_and_leaves_nothing(make: Callable[[], Any], scale: float) -> None:
    transformer = make()
    lora, other = dora(transformer), ScaledLora(random_lora(transformer, seed=2), 0.5)
    alone, together = with_dora(transformer, lora, scale), with_dora(transformer, lora, scale, other)
    plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager()
    for wanted, truth in (
        ([ScaledLora(lora, scale)], alone),
        ([other, ScaledLora(lora, scale)], together),
        ([ScaledLora(lora, scale)], alone),
    ):
        manager.apply(pipeline, wanted)
        assert (forward(transformer) - truth).abs().max() < 1e-5
        assert (truth - plain).abs().max() > 0.01
    manager.apply(pipeline)
    assert torch.equal(forward(transformer), plain)


def test_a_dora_in_bfloat16_keeps_the_model_in_bfloat16() -> None:
    transformer = flux1_transformer()
    lora = dora(transformer)
    truth = with_dora(transformer, lora, 1.0)
    transformer.to(torch.bfloat16)
    LoRAManager().apply(pipeline_of(transformer), [ScaledLora(lora, 1.0)])
    with torch.autocast("cpu", torch.bfloat16):
        output = forward(transformer)
    assert (output.float() - truth).abs().mean() < 0.05


def test_a_dora_that_cannot_be_applied_exactly_is_refused_and_leaves_nothing() -> None:
    transformer = flux1_transformer()
    plain, pipeline = forward(transformer), pipeline_of(transformer)
    lora = dora(transformer)
    first = next(iter(lora.layers))
    partly = replace(lora, layers={**lora.layers, first: replace(lora.layers[first], magnitude=None)})
    slot, adapters = LoRAManager(mode="slot"), LoRAManager()
    for manager, wanted, words in (
        (slot, [lora], "a DoRA, which cannot be applied to a compiled model"),
        (adapters, [lora, dora(transformer, seed=2)], "more than one is a DoRA"),
        (adapters, [partly], "in some of its layers only"),
    ):
        with pytest.raises(LoraInvalid, match=words):
            manager.apply(pipeline, [ScaledLora(item, 1.0) for item in wanted])
        manager.apply(pipeline)
        assert torch.equal(forward(transformer), plain)

    quantised = flux1_transformer()
    quantize_(quantised, torchao_config("int8_weight_only"))
    with pytest.raises(LoraInvalid, match="quantised or offloaded"):
        LoRAManager().apply(pipeline_of(quantised), [ScaledLora(lora, 1.0)])


@contextmanager
def interrupted_at(function: str, count: int, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` where `function` is called for the `count`-th time, as a cancellation would from outside."""
    calls = 0

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event == "call" and frame.f_code.co_name == function:
            calls += 1
            if calls == count:
                raise error

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("mode", "function", "count"),
    [
        ("adapters", "update_layer", 1),
        ("adapters", "update_layer", 20),
        ("adapters", "set_peft_model_state_dict", 1),
        ("adapters", "set_scale", 5),
        ("slot", "_write", 1),
        ("slot", "_write", 20),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError, JobCancelled])
def test_an_interrupted_swap_leaves_nothing(
    mode: LoraMode, function: str, count: int, error: type[BaseException]
) -> None:
    transformer = flux1_transformer()
    plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager(mode=mode)
    one, two = random_lora(transformer, seed=1), random_lora(transformer, seed=2)
    truth = merged(transformer, ScaledLora(one, 1.0))
    manager.apply(pipeline, [ScaledLora(one, 1.0)])

    with pytest.raises(error), interrupted_at(function, count, error):
        manager.apply(pipeline, [ScaledLora(two, 1.0)])
    assert manager.applied is None

    manager.apply(pipeline)
    assert torch.equal(forward(transformer), plain)
    manager.apply(pipeline, [ScaledLora(one, 1.0)])
    assert (forward(transformer) - truth).abs().max() < 1e-5


def test_an_interrupted_first_load_leaves_nothing() -> None:
    for mode in MODES:
        transformer = flux1_transformer()
        plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager(mode=mode)
        lora = ScaledLora(random_lora(transformer, seed=1), 1.0)
        truth = merged(transformer, lora)
        with pytest.raises(JobCancelled), interrupted_at("update_layer", 9, JobCancelled):
            manager.apply(pipeline, [lora])
        manager.apply(pipeline)
        assert torch.equal(forward(transformer), plain)
        manager.apply(pipeline, [lora])
        assert (forward(transformer) - truth).abs().max() < 1e-5


def test_adapters_that_were_not_used_for_longest_leave_first() -> None:
    transformer = flux1_transformer()
    loras = [random_lora(transformer, seed=i) for i in range(3)]
    pipeline, manager = pipeline_of(transformer), LoRAManager(max_resident_bytes=2 * loras[0].num_bytes)
    for index in (0, 1, 0, 2):
        manager.apply(pipeline, [ScaledLora(loras[index], 1.0)])
    assert set(transformer.peft_config) == {loras[0].content_hash, loras[2].content_hash}


def test_a_transformer_that_was_loaded_anew_gets_the_lora_again() -> None:
    for mode in MODES:
        manager = LoRAManager(mode=mode)
        for _ in range(2):
            transformer = flux1_transformer()
            lora = ScaledLora(random_lora(transformer, seed=1), 1.0)
            truth = merged(transformer, lora)
            manager.apply(pipeline_of(transformer), [lora])
            assert (forward(transformer) - truth).abs().max() < 1e-5


def test_the_slot_grows_for_a_rank_that_it_does_not_hold() -> None:
    transformer = flux1_transformer()
    lora = ScaledLora(random_lora(transformer, seed=1, rank=24), 1.0)
    truth = merged(transformer, lora)
    manager, pipeline = LoRAManager(mode="slot", slot_rank=8), pipeline_of(transformer)
    manager.reserve(pipeline)
    reserved = slot_bytes(transformer)
    plain = forward(transformer)
    manager.apply(pipeline, [lora])
    assert (forward(transformer) - truth).abs().max() < 1e-5
    assert slot_bytes(transformer) == 4 * reserved

    manager.apply(pipeline, [ScaledLora(random_lora(transformer, seed=2, rank=4), 1.0)])
    assert slot_bytes(transformer) == reserved  # a large one is not kept for small LoRAs
    manager.apply(pipeline)
    assert torch.equal(forward(transformer), plain)


def slot_bytes(transformer: Any) -> int:
    return sum(weight.nbytes for name, weight in transformer.named_parameters() if ".lora_" in name)


@pytest.mark.parametrize("mode", MODES)
def test_loras_that_are_too_large_together_are_refused(mode: LoraMode) -> None:
    transformer = flux1_transformer()
    plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager(mode=mode)
    layer = "transformer_blocks.0.attn.to_q"
    large = [ScaledLora(random_lora(transformer, seed=i, rank=250, only=layer), 1.0) for i in range(3)]
    with pytest.raises(LoraInvalid, match="rank 750 together") as refused:
        manager.apply(pipeline, large)
    assert refused.value.field == "loras"
    assert torch.equal(forward(transformer), plain)
    manager.apply(pipeline, large[:2])
    assert not torch.equal(forward(transformer), plain)


@pytest.mark.slow
def test_a_compiled_transformer_is_never_compiled_again_for_a_lora() -> None:
    import torch._dynamo as dynamo

    transformer = flux1_transformer(num_layers=1, num_single_layers=1)
    loras = [random_lora(transformer, seed=i, rank=1 + i, only="attn" if i % 2 else "") for i in range(4)]
    jobs = [[ScaledLora(loras[i], 0.5)] for i in range(4)] + [[ScaledLora(lo, -1.0) for lo in loras[:2]], []]
    truths = [merged(transformer, *job) for job in jobs]
    pipeline, manager = pipeline_of(transformer), LoRAManager(mode="slot", slot_rank=16)
    manager.reserve(pipeline)
    transformer.compile_repeated_blocks(fullgraph=True, dynamic=True, backend="eager")
    for _ in manager.variants(pipeline):
        forward(transformer)
    before = dict(dynamo.utils.counters["stats"])
    for job, truth in zip(jobs, truths, strict=True):
        manager.apply(pipeline, job)
        assert (forward(transformer) - truth).abs().max() < 1e-5
    assert before["unique_graphs"] >= 4  # two kinds of block, with the slot and without
    assert dict(dynamo.utils.counters["stats"]) == before


@pytest.mark.parametrize(("room_in_ranks", "expected"), [(512, 128), (100, 100), (80, 80)])
def test_a_slot_grows_as_far_as_there_is_room(room_in_ranks: int, expected: int) -> None:
    transformer = flux1_transformer()
    sides = sum(sum(shape) for shape in linear_shapes(transformer).values())
    pipeline = pipeline_of(transformer)
    manager = LoRAManager(mode="slot", slot_rank=16, slot_room_bytes=room_in_ranks * sides * 4)
    manager.reserve(pipeline)
    truth = merged(transformer, ScaledLora(large := random_lora(transformer, seed=1, rank=80), 1.0))
    manager.apply(pipeline, [ScaledLora(large, 1.0)])
    assert (forward(transformer) - truth).abs().max() < 1e-4
    assert {layer.lora_A["slot"].weight.shape[0] for layer in slot_layers(transformer)} == {expected}


def test_a_lora_beyond_the_room_is_refused_and_leaves_nothing() -> None:
    transformer = flux1_transformer()
    sides = sum(sum(shape) for shape in linear_shapes(transformer).values())
    plain, pipeline = forward(transformer), pipeline_of(transformer)
    manager = LoRAManager(mode="slot", slot_rank=16, slot_room_bytes=64 * sides * 4)
    manager.reserve(pipeline)
    small, large = (random_lora(transformer, seed=rank, rank=rank) for rank in (8, 80))
    truth = merged(transformer, ScaledLora(small, 1.0))
    with pytest.raises(LoraInvalid, match="rank 80 together, and this worker's GPU has room for 64") as refused:
        manager.apply(pipeline, [ScaledLora(large, 1.0)])
    assert refused.value.field == "loras"
    manager.apply(pipeline)
    assert torch.equal(forward(transformer), plain)
    manager.apply(pipeline, [ScaledLora(small, 1.0)])
    assert (forward(transformer) - truth).abs().max() < 1e-5


def slot_layers(transformer: Any) -> list[Any]:
    return [module for module in transformer.modules() if isinstance(module, LoraLayer)]


def test_a_job_without_loras_does_not_pay_for_the_slot() -> None:
    transformer = flux1_transformer()
    pipeline, manager = pipeline_of(transformer), LoRAManager(mode="slot")
    manager.reserve(pipeline)
    states = []
    for _ in manager.variants(pipeline):
        states.append({layer.disable_adapters for layer in slot_layers(transformer)})
    assert states == [{False}, {True}]
    manager.apply(pipeline, [ScaledLora(random_lora(transformer, seed=1), 1.0)])
    assert not any(layer.disable_adapters for layer in slot_layers(transformer))
    manager.apply(pipeline)
    assert all(layer.disable_adapters for layer in slot_layers(transformer))
