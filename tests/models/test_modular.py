"""FLUX.3 from a folder of blocks: loaded by a plan, quantised, offloaded, and read again from its checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flux_engine.models.catalog import FLUX_3_KLEIN
from flux_engine.models.checkpoint import write_checkpoint
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.planning.gpus import cpu_machine, find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.settings import Offload
from flux_engine.units import GIB
from tests.models.tiny_models import flux_3_parts

PLAN = replace(ModelOptimizer().plan(cpu_machine(total_bytes=400 * GIB), FLUX_3_KLEIN), dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the hub has it: an index of blocks, whose parts may name other repositories."""
    place = tmp_path_factory.mktemp("flux-3")
    parts = flux_3_parts()
    for name, part in parts.items():
        getattr(part, "tokenizer", part).save_pretrained(place / name)
    index = {name: [None, None, {"pretrained_model_name_or_path": "owner/other", "subfolder": name}] for name in parts}
    (place / "modular_model_index.json").write_text(json.dumps({"_class_name": FLUX_3_KLEIN.pipeline_class, **index}))
    return place


def loaded(folder: Path, plan: Plan, volume: Path | None = None) -> Any:
    return load_tuned(FLUX_3_KLEIN, Source(folder=folder, revision="1", volume=volume), plan, device="cpu")


def painted(pipeline: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    size = {"width": 32, "height": 32, "num_inference_steps": 2, "max_sequence_length": 16}
    return pipeline(prompt="a red sun", generator=generator, output_type="np", **size).images


def test_a_folder_of_blocks_is_loaded_and_offloaded(folder: Path) -> None:
    tuned = loaded(folder, PLAN)
    picture = painted(tuned.pipeline)
    assert tuned.applied.fallbacks == ()
    assert picture.shape == (1, 32, 32, 3)
    offloads: tuple[Offload, ...] = ("group", "text")
    for offload in offloads:
        streamed = loaded(folder, replace(PLAN, offload=offload))
        assert (streamed.applied.offload, streamed.applied.fallbacks) == (offload, ())
        assert np.array_equal(painted(streamed.pipeline), picture)


def test_it_is_quantised_and_read_again_from_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    eight_bits = replace(PLAN, parts=tuple(replace(part, quantisation="int8_weight_only") for part in PLAN.parts[:2]))
    plan = replace(eight_bits, parts=(*eight_bits.parts, PLAN.parts[2]))
    first = loaded(folder, plan, tmp_path)
    assert first.applied.is_quantised
    assert first.checkpoint is not None
    assert first.unsaved is not None
    assert write_checkpoint(first.checkpoint, first.unsaved)
    second = loaded(folder, plan, tmp_path)
    assert second.is_from_checkpoint
    assert np.array_equal(painted(first.pipeline), painted(second.pipeline))


@pytest.mark.parametrize("name", ["L4", "A10G", "H100", "RTX 4090"])
def test_no_plan_spreads_it_over_several_cards(name: str) -> None:
    card = find_card(name)
    assert card is not None
    several = replace(card, count=4)
    plans = [ModelOptimizer().plan(several, FLUX_3_KLEIN, Preferences(profile=p)) for p in ("balanced", "memory")]
    assert "balanced" not in [plan.offload for plan in plans]
