"""What a plan estimates for a model in one file against what a process takes, on the CPU: peak memory.

    python -m benchmarks.single_file_memory            # 1 GB of random weights, in bfloat16 and in fp8
    python -m benchmarks.single_file_memory --mb 100

The file is a FLUX.1 transformer in Black Forest Labs' layout whose base is the bundled model. Counted as in
plan_memory.py: what is resident at the peak beyond what was resident before loading.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.fleet import table
from benchmarks.plan_memory import ALLOCATOR, picture, plan_of, resident
from flux_engine.inputs.safetensors_header import BITS
from flux_engine.models import catalog
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.single_file.base import based
from flux_engine.models.single_file.model_file import read_model_file
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.units import MIB
from tests.models.single_file.files import FLUX_1, header_of

HEAD: int = 32  # channels of an attention head, as the bundled model has them
WIDTH: int = 1536
CHUNK: int = 16 * MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measured(options.measure)))
        return
    rows = []
    for dtype in ("BF16", "F8_E4M3"):
        with tempfile.TemporaryDirectory() as folder:
            path = random_file(Path(folder) / "random.safetensors", num_bytes=options.mb * 10**6, dtype=dtype)
            command = [sys.executable, "-m", "benchmarks.single_file_memory", "--measure", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR)
            planned, peak = json.loads(done.stdout.splitlines()[-1])
            sizes = (path.stat().st_size, planned, peak)
            rows.append((dtype, *(f"{size / MIB:.0f}" for size in sizes), f"{peak / planned:.2f}"))
    print(table(("file", "its size", "estimated peak", "measured peak", "measured / estimated"), rows))
    print("MiB, weights in float32, one thread")


def measured(path: Path) -> tuple[int, int]:
    """The plan's peak for the model in the file at `path`, and the process's."""
    import torch

    torch.set_num_threads(1)
    tiny = Source(folder=BUNDLED_FOLDER, revision="1")
    found = based(read_model_file(path, name=path.name), volume=path.parent)
    plan, side = plan_of(found.spec), int(found.spec.limits.max_pixels**0.5)
    # What the libraries keep after a picture of this size is the process's, whatever the model (4 MiB here).
    picture(load_tuned(catalog.FLUX_TINY, tiny, plan_of(catalog.FLUX_TINY), device="cpu").pipeline, side=side)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    source = Source(folder=found.folder, revision="1", file=found.file)
    tuned = load_tuned(found.spec, source, plan, device="cpu")
    picture(tuned.pipeline, side=side)
    return plan.peak_bytes, resident("VmHWM") - before


def random_file(path: Path, *, num_bytes: int, dtype: str) -> Path:
    """A transformer of about `num_bytes` with random weights: as many single blocks as they need."""
    scale = WIDTH // 128
    wide: dict[str, tuple[int, ...]] = {name: tuple(side * scale for side in shape) for name, shape in FLUX_1.items()}
    wide |= {"img_in.weight": (WIDTH, 64), "txt_in.weight": (WIDTH, 96), "vector_in.in_layer.weight": (WIDTH, 64)}
    wide |= {"time_in.in_layer.weight": (WIDTH, 256)}
    wide |= {"final_layer.linear.weight": (64, WIDTH), "final_layer.linear.bias": (64,)}
    wide |= {name: (HEAD,) for name in wide if name.endswith("norm.scale")}
    size = BITS[dtype] // 8
    block = {name: shape for name, shape in wide.items() if name.startswith("single_blocks.0.")}
    base_bytes, block_bytes = (size * sum(math.prod(shape) for shape in part.values()) for part in (wide, block))
    for number in range(1, 1 + max(0, num_bytes - base_bytes) // block_bytes):
        wide |= {name.replace(".0.", f".{number}.", 1): shape for name, shape in block.items()}
    header, data_bytes = header_of(wide, dtype=dtype)
    numbers = np.random.default_rng(0).normal(0, 0.02, CHUNK // 4).astype(np.float32).view(np.uint32) >> 16
    chunk = numbers.astype(np.uint16).tobytes() if dtype == "BF16" else bytes(range(16, 48)) * (CHUNK // 32)
    with path.open("wb") as file:
        file.write(header)
        while data_bytes > 0:
            data_bytes -= file.write(chunk[:data_bytes])
    return path


if __name__ == "__main__":
    main()
