"""What a LoRA costs between two jobs: `python -m benchmarks.lora_swap [--blocks 4 8] [--heads 8] [--compile]`.

A FLUX transformer with random weights, of any size; LoRAs of rank 16 on every Linear layer, from files. First use is
reading, checking, converting and applying; all later rows are what remains. diffusers' own way, unload and load, is
timed in the same run. With `--compile`, the graphs that torch.compile makes after the slot is reserved are counted.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.utils import logging
from safetensors.torch import load_file, save_file

from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.lora.names import layer_names, linear_shapes
from flux_engine.models.planning.plan import LoraMode

RANK = 16
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs=2, default=(4, 8), help="double and single blocks (FLUX.1: 19 38)")
    parser.add_argument("--heads", type=int, default=8, help="heads of 128 (FLUX.1: 24)")
    parser.add_argument("--compile", action="store_true", help="also count recompilations of the slot")
    parser.add_argument("--many", type=int, default=0, help="different LoRAs after which memory is looked at")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()  # diffusers says at every load that there is no text encoder
    device = "cuda" if torch.cuda.is_available() else "cpu"

    with tempfile.TemporaryDirectory() as folder:
        transformer = _transformer(arguments.blocks, arguments.heads).to(device)
        paths = [_write_lora(transformer, Path(folder) / f"{seed}.safetensors", seed) for seed in range(2 + REPEATS)]
        size = sum(parameter.numel() for parameter in transformer.parameters())
        print(f"{size / 1e6:.0f} M weights on {device}, LoRAs of {paths[0].stat().st_size / 1e6:.1f} MB, medians in ms")
        _print_row("diffusers unload + load", _by_diffusers(transformer, paths))
        for mode in ("adapters", "slot"):
            for name, seconds in _by_manager(transformer, paths, mode).items():
                _print_row(f"{mode}: {name}", seconds)
        _print_memory(transformer, paths[0].parent, arguments.many)
        if arguments.compile:
            print(f"graphs compiled for {len(paths)} LoRAs, scales and pairs: {_recompiled(transformer, paths)}")


def _transformer(blocks: Sequence[int], heads: int) -> Any:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=blocks[0], num_single_layers=blocks[1], num_attention_heads=heads, guidance_embeds=True
    )
    return transformer.to(torch.bfloat16).eval()


def _pipeline(transformer: Any) -> Any:
    parts = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    return FluxPipeline(transformer=transformer, **parts)


def _write_lora(transformer: Any, path: Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (height, width) in linear_shapes(transformer).items():
        tensors[f"transformer.{name}.lora_A.weight"] = torch.randn(RANK, width, generator=generator).bfloat16()
        tensors[f"transformer.{name}.lora_B.weight"] = torch.randn(height, RANK, generator=generator).bfloat16() / 1000
    save_file(tensors, path)
    return path


def _by_diffusers(transformer: Any, paths: Sequence[Path]) -> list[float]:
    pipeline = _pipeline(transformer)

    def swap(path: Path) -> None:
        pipeline.unload_lora_weights()
        pipeline.load_lora_weights(load_file(path), adapter_name="only")

    swap(paths[0])
    seconds = [_timed(swap, path) for path in paths[1:]]
    pipeline.unload_lora_weights()
    return seconds


def _by_manager(transformer: Any, paths: Sequence[Path], mode: LoraMode) -> dict[str, list[float]]:
    pipeline, manager = _pipeline(transformer), LoRAManager(mode=mode)
    library = LoraLibrary(layer_names(linear_shapes(transformer)), max_file_bytes=2**31)

    hashes = [_sha256(path) for path in paths]  # known from fetching

    def job(*chosen: tuple[int, float]) -> None:
        loras = [(library.prepare(paths[i], content_hash=hashes[i]), scale) for i, scale in chosen]
        manager.apply(pipeline, [ScaledLora(lora, scale) for lora, scale in loras])

    job((0, 1.0))  # the slot is made once, whatever comes first
    rows: dict[str, list[float]] = {
        name: [] for name in ("first use", "second use", "changed scale", "two at once", "none")
    }
    for i in range(1, 1 + REPEATS):
        rows["first use"].append(_timed(job, (i, 1.0)))
        job((0, 1.0))
        rows["second use"].append(_timed(job, (i, 1.0)))
        rows["changed scale"].append(_timed(job, (i, 0.5)))
        rows["two at once"].append(_timed(job, (0, 0.5), (i, 0.5)))
        rows["none"].append(_timed(job))
    transformer.unload_lora()
    return rows


def _print_memory(transformer: Any, folder: Path, count: int) -> None:
    """How much the process grew over `count` LoRAs of which two are kept in memory and two in the transformer."""
    mode: LoraMode
    for mode in ("adapters", "slot") if count else ():
        pipeline, names = _pipeline(transformer), layer_names(linear_shapes(transformer))
        size = _write_lora(transformer, folder / "many.safetensors", 0).stat().st_size
        manager = LoRAManager(mode=mode, max_resident_bytes=2 * size)
        library = LoraLibrary(names, max_file_bytes=2**31, max_memory_bytes=2 * size)
        sizes = []
        for seed in range(count):
            path = _write_lora(transformer, folder / "many.safetensors", seed)
            manager.apply(pipeline, [ScaledLora(library.prepare(path, content_hash=_sha256(path)), 1.0)])
            sizes.append(_resident_bytes())
        print(f"{mode}: process after 10 LoRAs {sizes[9] / 1e6:.0f} MB, after {count} {sizes[-1] / 1e6:.0f} MB")
        transformer.unload_lora()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _recompiled(transformer: Any, paths: Sequence[Path]) -> int:
    import torch._dynamo as dynamo

    pipeline, manager = _pipeline(transformer), LoRAManager(mode="slot")
    library = LoraLibrary(layer_names(linear_shapes(transformer)), max_file_bytes=2**31)
    loras = [library.prepare(path, content_hash=_sha256(path)) for path in paths]
    manager.reserve(pipeline)
    transformer.compile_repeated_blocks(fullgraph=True, dynamic=True)
    _forward(transformer)
    before = dynamo.utils.counters["stats"]["unique_graphs"]
    for index, lora in enumerate(loras):
        manager.apply(pipeline, [ScaledLora(lora, 0.5), ScaledLora(loras[0], index - 2.0)])
        _forward(transformer)
    manager.apply(pipeline)
    _forward(transformer)
    return int(dynamo.utils.counters["stats"]["unique_graphs"] - before)


@torch.no_grad()
def _forward(transformer: Any) -> None:
    like = next(transformer.parameters())
    transformer(
        hidden_states=like.new_zeros(1, 64, 64),
        encoder_hidden_states=like.new_zeros(1, 32, 4096),
        pooled_projections=like.new_zeros(1, 768),
        timestep=like.new_tensor([0.5]),
        guidance=like.new_tensor([3.5]),
        img_ids=like.new_zeros(64, 3),
        txt_ids=like.new_zeros(32, 3),
    )


def _timed(work: Callable[..., None], *arguments: Any) -> float:
    begun = time.perf_counter()
    work(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _print_row(name: str, seconds: Sequence[float]) -> None:
    print(f"{name:28} {statistics.median(seconds) * 1000:8.1f}")


if __name__ == "__main__":
    main()
