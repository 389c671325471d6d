"""A quantised checkpoint, made once and loaded by every worker after: bytes, seconds and the picture.

    python -m benchmarks.quantised

The 300 M random FLUX of `benchmarks.plan_memory`, int8 weights, on the CPU. Three ways to a pipeline in one run, from
a warm page cache: the plain weights, the plain weights quantised while they are loaded, as the first worker has
them, and what was written: the quantised components, beside the VAE and CLIP of the plain weights.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.fleet import table
from flux_engine.models.checkpoint import write_checkpoint
from flux_engine.models.loading import Source, Tuned, load_tuned
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.settings import Profile
from flux_engine.units import GIB, MIB
from tests.models.larger_flux import LARGER_FLUX, save_larger_flux
from tests.models.tiny_flux import Pixels, paint, psnr


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, volume = save_larger_flux(Path(name) / "weights"), Path(name) / "volume"
        source = Source(folder=folder, revision="1", volume=volume)
        loaded("quality", source)  # for imports and the page cache
        plain, plain_s = loaded("quality", source)
        reference = paint(plain.pipeline)
        made, made_s = loaded("memory", source)
        assert made.checkpoint is not None
        assert made.unsaved is not None
        write_checkpoint(made.checkpoint, made.unsaved)
        again, again_s = loaded("memory", source)
        assert again.is_from_checkpoint
        painted = paint(made.pipeline)
        rows = [
            row("plain", folder, plain_s, reference, reference),
            row("quantised", folder, made_s, painted, reference),
            row("from the checkpoint", made.checkpoint, again_s, paint(again.pipeline), reference),
        ]
        print(table(("way", "MiB read", "seconds", "PSNR to plain, dB"), rows))
        print(f"from the checkpoint, against quantised: {psnr(paint(again.pipeline), painted):.0f} dB")


def loaded(profile: Profile, source: Source) -> tuple[Tuned, float]:
    plan = ModelOptimizer().plan(cpu_machine(total_bytes=64 * GIB), LARGER_FLUX, Preferences(profile=profile))
    began = time.perf_counter()
    tuned = load_tuned(LARGER_FLUX, source, plan, device="cpu")
    return tuned, time.perf_counter() - began


def row(way: str, folder: Path, seconds: float, picture: Pixels, reference: Pixels) -> tuple[object, ...]:
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return way, f"{size / MIB:.0f}", f"{seconds:.2f}", f"{psnr(picture, reference):.1f}"


if __name__ == "__main__":
    main()
