"""What a GPU reaches with FLUX.1-dev's shape and random weights, plain diffusers beside ours in one run.

    python -m benchmarks.gpu --out DIR                      18 minutes on the GPU of this machine
    python -m benchmarks.gpu --only env                     half a minute, to see that everything can be imported
    python -m benchmarks.gpu --device cpu                   the same code on a small shape; its figures say nothing

One JSON object a line for each finding, `gpu.json` in DIR after each section, and at the end one table and the
constants that the findings imply. `python -m builder.calibrate DIR/gpu.json` writes those into the table of cards.

A machine that reaches no registry has torch, transformers, accelerate, peft and little else. The rest comes with you:

    pip download --no-deps --only-binary :all: --python-version 3.12 -d wheels -r benchmarks/gpu_sections/wheels.txt
    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site:. python3 -u -m benchmarks.gpu --out DIR
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from flux_engine.models.planning.device import has_gpu

MINUTES_ON_A_GPU: Final = 18.0
MINUTES_ON_A_CPU: Final = 2.75
# Seconds that each may take, on a GPU and on a CPU, in the order of what is wanted first: an H100's, rounded up.
SECTIONS: Final[dict[str, tuple[float, float | None]]] = {
    "env": (10, 3),
    "plain": (45, 20),
    "ours": (320, 30),
    "blob": (240, 45),
    "settle": (50, 10),
    "numbers": (20, 3),
    "cache": (50, 10),
    "memory": (15, 3),
    "offload": (70, 3),
    "bundled": (50, 5),
    "kernels": (120, 5),
    "gemm": (200, None),  # Triton's templates are for GPUs
}


def main(arguments: Sequence[str]) -> int:
    """Run the sections; the exit code is 1 where one of them failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - set(SECTIONS)
    if unknown:
        parser.error(f"--only: no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if options.device == "cuda" and not has_gpu():
        parser.error("--device cuda: there is no GPU here")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as caches:
        # Nothing compiled before is found, and nothing is left.
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor", "TRITON_CACHE_DIR": f"{caches}/triton"}
        return _measured(options)


def _measured(options: argparse.Namespace) -> int:
    from flux_engine.models.tuning.libraries import import_diffusers, prepare_libraries

    prepare_libraries()
    import torch

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import_diffusers()
    from benchmarks.gpu_sections import blob, kernels, machine, memory, offload, pictures, report
    from benchmarks.gpu_sections.bench import Bench, Section
    from benchmarks.gpu_sections.clock import compiler_of
    from benchmarks.gpu_sections.scale import ON_A_CPU, ON_A_GPU
    from flux_engine.models.planning.device import read_gpu
    from flux_engine.models.planning.gpus import cpu_machine
    from flux_engine.models.planning.host_memory import total_memory

    is_cuda = options.device != "cpu" and torch.cuda.is_available()
    gpu = read_gpu() if is_cuda else cpu_machine(total_bytes=total_memory())
    run: dict[str, Callable[[Bench], None]] = {
        "env": machine.env,
        "plain": pictures.plain,
        "ours": pictures.ours,
        "settle": pictures.settle,
        "numbers": pictures.numbers,
        "cache": pictures.cache,
        "blob": blob.blob,
        "memory": memory.memory,
        "offload": offload.offload,
        "bundled": offload.bundled,
        "kernels": kernels.kernels,
        "gemm": pictures.gemm,
    }
    budgets = {name: of_devices[gpu.is_cpu] for name, of_devices in SECTIONS.items()}
    names = [name for name in options.only or SECTIONS if budgets[name] is not None]
    chosen = [Section(name=name, run=run[name], budget_s=budgets[name] or 0) for name in names]
    bench = Bench(scale=ON_A_GPU if is_cuda else ON_A_CPU, gpu=gpu, folder=options.out)
    minutes = options.minutes or (MINUTES_ON_A_GPU if is_cuda else MINUTES_ON_A_CPU)
    with compiler_of(bench.scale):
        bench.run(chosen, seconds=minutes * 60, constants=report.constants)
    print(f"\n{report.table(bench)}\n\n{report.constants_table(bench)}")
    return int(any(found["outcome"] == "failed" for found in bench.outcomes.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What a GPU reaches with FLUX.")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="the folder of gpu.json")
    parser.add_argument("--minutes", type=float, help="sections that do not fit into what is left are left out")
    parser.add_argument("--only", type=lambda names: names.split(","), help="names of sections, such as env,plain")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="by default a GPU where there is one")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
