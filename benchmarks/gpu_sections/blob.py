"""Section `blob`: how long the first pictures of a worker take, with compiled code of an earlier one and without.

Each worker is a process of its own with empty caches, as on a machine that has just started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.clock import compiler_of, seconds_of
from benchmarks.gpu_sections.pictures import tuned_pipeline, warm_up
from benchmarks.gpu_sections.scale import ON_A_CPU, ON_A_GPU
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.planning.device import read_gpu
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.host_memory import total_memory
from flux_engine.models.tuning.compilation import graphs_missed, load_compiled, save_compiled
from flux_engine.units import MIB

FLAGS: Final = {"cold": (), "with what the first one left": ("--loads",), "with coordinate descent": ("--searches",)}


def blob(bench: Bench) -> None:
    """Three workers on a GPU; on a CPU, where nothing is searched for, the first and the last."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "compiled.bin"
        for way, flags in FLAGS.items():
            if bench.gpu.is_cpu and "--searches" in flags:
                continue
            found = _worker(bench, file, flags)
            bench.row(f"worker {way}: warm-up", found["warm_up_s"], "s")
            bench.figures |= {f"graphs of a worker {way}: {key}": found[key] for key in ("hits", "misses")}
            bench.figures["blob MiB"] = file.stat().st_size / MIB
            if "--loads" in flags and found["misses"]:
                raise ValueError(f"{found['misses']} graphs were not found in what the first worker left")


def _worker(bench: Bench, file: Path, flags: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as own:
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{own}/inductor", "TRITON_CACHE_DIR": f"{own}/triton"}
        command = [sys.executable, "-m", "benchmarks.gpu_sections.blob", bench.scale.device, str(file), *flags]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | caches)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(device: str, file: Path, flags: Sequence[str]) -> None:
    """One worker: its warm-up, the LoRA slot acting and bypassed, as flux_engine/models/warm_up.py has it. On a CPU,
    where the section `ours` has traced the slot, without one."""
    from torch._dynamo.utils import counters

    is_cuda = device == "cuda"
    gpu = read_gpu() if is_cuda else cpu_machine(total_bytes=total_memory())
    bench = Bench(scale=ON_A_GPU if is_cuda else ON_A_CPU, gpu=gpu, folder=file.parent)
    pipeline, _ = tuned_pipeline(bench, bench.scale.fastest)
    loras = LoRAManager(mode="slot" if is_cuda else "adapters")
    loras.reserve(pipeline)
    if "--searches" in flags:
        from torchao.quantization.utils import recommended_inductor_config_setter

        recommended_inductor_config_setter()
    if "--loads" in flags:
        load_compiled(file)

    def warm_up_all() -> None:
        for _ in loras.variants(pipeline):
            warm_up(bench, pipeline, bench.scale.blob_sides)

    with compiler_of(bench.scale):
        seconds, _ = seconds_of(warm_up_all)
    if not flags:
        save_compiled(file)
    hits = int(counters["aot_autograd"]["autograd_cache_hit"])
    print(json.dumps({"warm_up_s": seconds, "hits": hits, "misses": graphs_missed()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
