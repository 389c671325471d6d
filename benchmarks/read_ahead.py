"""Cold start of a 2 GB random FLUX: diffusers' own loading against the same with its files read ahead.

    python -m benchmarks.read_ahead [--gigabytes 2] [--threads 12] [--folder /runpod-volume]

Each load is a fresh process, since imports are part of a cold start; before each the files leave the page cache
(`posix_fadvise`). Prints seconds from the process's start to loaded weights that were all touched, and the peak of its
memory, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOAD = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
folder, mode, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ahead = None
if mode == "read_ahead":
    from flux_engine.models.read_ahead import ReadAhead, weight_files
    ahead = ReadAhead([weight_files(folder, ".")], threads=threads).start()
import torch
torch.set_num_threads(1)
from diffusers import FluxTransformer2DModel
imported = time.perf_counter()
model = FluxTransformer2DModel.from_pretrained(folder, dtype=torch.bfloat16, disable_mmap=mode == "no_mmap")
touched = sum(int(weight.view(torch.int16).flatten()[::1024].ne(0).sum()) for weight in model.parameters())
loaded = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
report = ahead.wait() if ahead else None
print(json.dumps({"mode": mode, "import_s": round(imported - began, 2), "total_s": round(loaded - began, 2),
    "peak_gib": round(peak / 2**30, 2), "read_ahead_s": round(report.seconds, 2) if report else None,
    "touched": touched}))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; not a RAM disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        _write_random_flux(folder, options.gigabytes)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        print(json.dumps({"bytes": size, "cold_read_mb_s": round(_cold_read(folder))}))
        for mode in ("mmap", "no_mmap", "read_ahead") * options.rounds:
            _drop_from_cache(folder)
            command = [sys.executable, "-W", "ignore", "-c", LOAD, str(folder), mode, str(options.threads)]
            loaded = subprocess.run(command, check=True, capture_output=True, text=True)
            print(loaded.stdout.strip().splitlines()[-1], flush=True)


def _write_random_flux(folder: Path, gigabytes: float) -> None:
    import torch
    from diffusers import FluxTransformer2DModel

    blocks = max(1, round((gigabytes * 1e9 / 2 - 350e6) / 141.6e6))  # beside one double block and the embedders
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=blocks, joint_attention_dim=256)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    for weight in model.parameters():
        weight.data.fill_(0.01)
    model.save_pretrained(folder, max_shard_size="500MB")


def _drop_from_cache(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cold_read(folder: Path) -> float:
    """MB/s of this disk for one sequential reader."""
    _drop_from_cache(folder)
    path = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(16 << 20):
            pass
    return path.stat().st_size / 1e6 / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
