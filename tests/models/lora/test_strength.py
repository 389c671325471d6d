"""Alphas that stand outside of the tensors: in a file's notes, or nowhere."""

from __future__ import annotations

import json

import pytest
import torch

from flux_engine.models.lora.file import LoraFile
from flux_engine.models.lora.format import NO_ALPHA, prepare_lora
from tests.models.lora.schemes import KOHYA, write
from tests.models.tiny import flux1_transformer, names_of, random_matrices

LAYER, OTHER = "transformer_blocks.0.attn.to_q", "x_embedder"
MATRICES = random_matrices({LAYER: (128, 128), OTHER: (128, 64)})  # of rank 4

PEFT = {"r": 4, "lora_alpha": 8}
NOTES = {  # the notes, and alpha / rank of the two layers
    "diffusers": ({"lora_adapter_metadata": {"transformer.r": 4, "transformer.lora_alpha": 8}}, (2.0, 2.0)),
    "diffusers, a pattern": (
        {"lora_adapter_metadata": {"transformer.lora_alpha": 8, "transformer.alpha_pattern": {OTHER: 1}}},
        (2.0, 0.25),
    ),
    "diffusers, by the end of a name": (
        {"lora_adapter_metadata": {"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"to_q": 1}}},
        (0.25, 2.0),
    ),
    "PEFT's form of a pattern": (
        {"adapter_config": {**PEFT, "alpha_pattern": {r"^transformer_blocks\.0\.attn\.to_q$": 2}}},
        (0.5, 2.0),
    ),
    "diffusers, rank-stabilised": (
        {"lora_adapter_metadata": {"transformer.lora_alpha": 8, "transformer.use_rslora": True}},
        (4.0, 4.0),
    ),
    "SimpleTuner, by component": ({"lora_adapter_metadata": {"transformer": PEFT}}, (2.0, 2.0)),
    "without a component": ({"lora_adapter_metadata": PEFT}, (2.0, 2.0)),
    "the text encoder's is not the transformer's": (
        {"lora_adapter_metadata": {"text_encoder.lora_alpha": 1, "transformer.lora_alpha": 8, "transformer.r": 4}},
        (2.0, 2.0),
    ),
    "PEFT beside the file": ({"adapter_config": PEFT}, (2.0, 2.0)),
    "the file's own before what stood beside it": (
        {"adapter_config": {"lora_alpha": 1}, "lora_adapter_metadata": {"transformer.lora_alpha": 8}},
        (2.0, 2.0),
    ),
    "lora_alpha": ({"lora_alpha": "2", "rank": "4"}, (0.5, 0.5)),
    "network_alpha": ({"network_alpha": "2.0"}, (0.5, 0.5)),
    "alpha": ({"alpha": "2"}, (0.5, 0.5)),
    "by component, as plain notes": ({"transformer.lora_alpha": "64", "transformer.r": "4"}, (16.0, 16.0)),
    "rank-stabilised, as plain notes": ({"lora_alpha": "8", "use_rslora": "True"}, (4.0, 4.0)),
    "0, which trainers read as the rank": ({"lora_alpha": "0"}, (1.0, 1.0)),
}
WITHOUT = {
    "nothing": {},
    "kohya's own note": {"ss_network_alpha": "1", "ss_network_dim": "4"},
    "an alpha that is no number": {"alpha": "default"},
    "an alpha out of range": {"lora_alpha": "1e300"},
    "not a number": {"lora_alpha": "nan"},
    "no alpha among the others": {"lora_adapter_metadata": '{"transformer.r": 4}'},
}


def factors(notes: dict[str, str]) -> tuple[tuple[float, float], tuple[str, ...]]:
    file = LoraFile(write(MATRICES, "transformer."), notes)
    prepared = prepare_lora(file, names_of(flux1_transformer()), content_hash="x")
    found = [float((prepared.layers[name].up / MATRICES[name][1]).mean()) for name in (LAYER, OTHER)]
    return (round(found[0], 5), round(found[1], 5)), prepared.warnings


@pytest.mark.parametrize(("notes", "expected"), NOTES.values(), ids=NOTES)
def test_an_alpha_in_the_notes_counts(notes: dict[str, object], expected: tuple[float, float]) -> None:
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in notes.items()}
    assert factors(text) == (expected, ())


@pytest.mark.parametrize("notes", WITHOUT.values(), ids=WITHOUT)
def test_a_file_without_an_alpha_acts_in_full_and_says_so_once(notes: dict[str, str]) -> None:
    assert factors(notes) == ((1.0, 1.0), (NO_ALPHA,))


def test_alphas_of_tensors_come_before_those_of_notes() -> None:
    tensors = write(MATRICES, "lora_unet_", KOHYA, flat=True, alpha=2.0)
    notes = {"ss_network_alpha": "64", "lora_alpha": "64", "alpha": "64"}
    prepared = prepare_lora(LoraFile(tensors, notes), names_of(flux1_transformer()), content_hash="x")
    assert torch.allclose(prepared.layers[LAYER].up, MATRICES[LAYER][1])
    assert prepared.warnings == ()
