"""Generated LoRA files: names of all trainers mixed, cut, doubled and misspelt, tensors of all types and shapes.

    python -m tests.models.lora.fuzz 5000

Each is read and prepared as a job's would be: it fits the model or is refused by name. Nothing else may be raised.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save
from torch import Tensor

from flux_engine.errors import ClientError
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.names import linear_shapes
from tests.models.lora.schemes import SCHEMES, Tensors
from tests.models.tiny import flux1_transformer, flux2_transformer, names_of, random_matrices, sha256_of

WORDS: Final = (
    *("transformer", "diffusion_model", "lora_unet_", "module", "_orig_mod", "base_layer", "text_encoder", "lora_te1_"),
    *("double_blocks", "single_blocks", "transformer_blocks", "0", "1", "99", "-1", "img_attn", "qkv", "linear1"),
    *("lora_A", "lora_B", "lora_down", "lora_up", "alpha", "dora_scale", "lokr_w1", "hada_w1_a", "diff", "diff_b"),
    *(
        "lora_magnitude_vector",
        "default",
        "weight",
        "bias",
        "lora_mid",
        "oft_blocks",
        "norm_q",
        "..",
        "\u98a8",
        "",
        "$$",
    ),
)
DTYPES: Final = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int8, torch.int64, torch.uint16),
    *(torch.bool, torch.complex64),
)
NOTES: Final = (
    *(
        {},
        {"format": "pt"},
        {"alpha": "2"},
        {"lora_alpha": "x"},
        {"network_alpha": "-1e400"},
        {"ss_network_alpha": "1"},
    ),
    *({"lora_adapter_metadata": text} for text in ("{", "[]", '{"transformer.lora_alpha": 1}', '{"transformer": 5}')),
    *({"adapter_config": text} for text in ('{"lora_alpha": "4"}', '{"alpha_pattern": {"(": 1}, "lora_alpha": null}')),
    *({"modelspec.architecture": text} for text in ("flux-1-dev/lora", "hunyuan-video/lora", "")),
)

Mutation = Callable[[random.Random, Tensors], None]


def _rename(rng: random.Random, tensors: Tensors) -> None:
    name = rng.choice(list(tensors))
    parts = name.split(".")
    parts[rng.randrange(len(parts))] = rng.choice(WORDS)
    tensors[".".join(parts)] = tensors.pop(name)


def _insert(rng: random.Random, tensors: Tensors) -> None:
    name = rng.choice(list(tensors))
    parts = name.split(".")
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(WORDS))
    tensors[".".join(parts)] = tensors.pop(name)


def _misspell(rng: random.Random, tensors: Tensors) -> None:
    name = rng.choice(list(tensors))
    place = rng.randrange(len(name))
    tensors[name[:place] + rng.choice("_.x0 ") + name[place + rng.randrange(2) :]] = tensors.pop(name)


def _drop(rng: random.Random, tensors: Tensors) -> None:
    if len(tensors) > 1:
        del tensors[rng.choice(list(tensors))]


def _double(rng: random.Random, tensors: Tensors) -> None:
    name = rng.choice(list(tensors))
    tensors[rng.choice(("unet.", "module.", "x.")) + name] = tensors[name].clone()


def _add(rng: random.Random, tensors: Tensors) -> None:
    tensors[".".join(rng.choices(WORDS, k=rng.randrange(1, 6)))] = torch.ones(rng.choices((0, 1, 4, 128), k=2))


def _retype(rng: random.Random, tensors: Tensors) -> None:
    name = rng.choice(list(tensors))
    if not tensors[name].is_complex():
        tensors[name] = tensors[name].to(rng.choice(DTYPES))


def _reshape(rng: random.Random, tensors: Tensors) -> None:
    name = rng.choice(list(tensors))
    changes: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda t: t.flatten(),
        lambda t: t.T if t.ndim == 2 else t,
        lambda t: t[..., None, None],
        lambda t: t[: len(t) // 2] if t.ndim else t,
        lambda t: torch.cat([t, t]) if t.ndim else t,
        lambda t: torch.zeros(()),
        lambda t: t * 1e30,
    )
    tensors[name] = rng.choice(changes)(tensors[name])


MUTATIONS: Final[tuple[Mutation, ...]] = (_rename, _insert, _misspell, _drop, _double, _add, _retype, _reshape)


def generated(rng: random.Random, shapes: dict[str, tuple[int, int]]) -> bytes:
    """One file: a few layers in the names of one or two trainers, changed up to four times."""
    tensors: Tensors = {}
    for _ in range(rng.choice((1, 1, 2))):
        block = rng.choice(("transformer_blocks.0.", "single_transformer_blocks.1.", ""))
        chosen = {
            name: shape for name, shape in shapes.items() if name.startswith(block) and ("." in name or not block)
        }
        layers = chosen if block else dict(rng.sample(sorted(chosen.items()), 3))
        try:
            tensors |= rng.choice(list(SCHEMES.values()))(random_matrices(layers, rank=rng.choice((1, 4))))
        except KeyError:  # a scheme without names for these
            tensors |= SCHEMES["PEFT"](random_matrices(layers))
    tensors = tensors or SCHEMES["PEFT"](random_matrices({"proj_out": shapes["proj_out"]}))
    for _ in range(rng.randrange(5)):
        rng.choice(MUTATIONS)(rng, tensors)
    content: bytes = save({n: t.clone().contiguous() for n, t in tensors.items()}, dict(rng.choice(NOTES)))
    if rng.random() < 0.05:
        content = content[: rng.randrange(len(content))]
    return content


def run(count: int, *, seed: int = 0) -> Counter[str]:
    """Prepare `count` files, and count what became of them."""
    rng, results = random.Random(seed), Counter[str]()
    transformers = [flux1_transformer(), flux2_transformer()]
    models = [
        (linear_shapes(transformer), LoraLibrary(names_of(transformer), max_file_bytes=10**8, max_memory_bytes=1))
        for transformer in transformers
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        for _ in range(count):
            shapes, library = rng.choice(models)
            path.write_bytes(generated(rng, shapes))
            try:
                lora = library.prepare(path, content_hash=sha256_of(path))
            except ClientError as error:
                json.loads(error.to_json("job"))
                results[error.code] += 1
            else:
                assert lora.layers
                assert set(lora.layers) <= set(shapes)
                assert all(layer.up.shape[0] == shapes[name][0] for name, layer in lora.layers.items())
                results["applied"] += 1
    return results


if __name__ == "__main__":
    print(dict(run(int(sys.argv[1]))))
