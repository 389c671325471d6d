"""What a plan estimates against what a process takes, on the CPU: peak memory of flux-tiny and of a 300 M FLUX.

    python -m benchmarks.plan_memory

Each model is loaded and makes its largest picture in a process of its own. Counted is what is resident at the peak
beyond what was resident before loading, when all libraries were imported and had run once; the allocator gives freed
memory back at once, so that the peak is what is in use. The second model has FLUX.1's classes and random weights, and
the autoencoder of FLUX.1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.fleet import table
from flux_engine.models import catalog
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.units import GIB, MIB
from tests.models.larger_flux import LARGER_FLUX, save_larger_flux

ALLOCATOR = {  # glibc's; larger blocks are mapped, and unmapped when they are freed
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
}
MEASURED = """
import json, sys
from pathlib import Path
from benchmarks.plan_memory import measured_peak, plan_of, spec_of
print(json.dumps(measured_peak(spec_of(sys.argv[1]), Path(sys.argv[2]), plan_of(spec_of(sys.argv[1])))))
"""


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folders = {"flux-tiny": BUNDLED_FOLDER, LARGER_FLUX.name: save_larger_flux(Path(name))}
        for model, folder in folders.items():
            plan = plan_of(spec_of(model))
            command = [sys.executable, "-c", MEASURED, model, str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR)
            peak = json.loads(done.stdout.splitlines()[-1])
            side = int(spec_of(model).limits.max_pixels ** 0.5)
            sizes = (sum(part.bytes for part in plan.parts), plan.activation_bytes, plan.peak_bytes, peak)
            rows.append(
                (model, f"{side}x{side}", *(f"{size / MIB:.0f}" for size in sizes), f"{peak / plan.peak_bytes:.2f}")
            )
    header = ("model", "picture", "weights", "activations", "estimated peak", "measured peak", "measured / estimated")
    print(table(header, rows))
    print("MiB, float32, one thread")


def spec_of(model: str) -> ModelSpec:
    return LARGER_FLUX if model == LARGER_FLUX.name else catalog.FLUX_TINY


def plan_of(spec: ModelSpec) -> Plan:
    return ModelOptimizer().plan(cpu_machine(total_bytes=64 * GIB), spec)


def measured_peak(spec: ModelSpec, folder: Path, plan: Plan) -> int:
    """Bytes resident at the peak of loading `spec` and making its largest picture, beyond those before."""
    import torch

    from flux_engine.models.loading import Source, load_tuned

    torch.set_num_threads(1)
    tiny = load_tuned(
        catalog.FLUX_TINY, Source(folder=BUNDLED_FOLDER, revision="1"), plan_of(catalog.FLUX_TINY), device="cpu"
    )
    picture(tiny.pipeline, side=64)
    del tiny
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    tuned = load_tuned(spec, Source(folder=folder, revision="1"), plan, device="cpu")
    picture(tuned.pipeline, side=int(spec.limits.max_pixels**0.5), text_tokens=spec.limits.max_sequence_length)
    return resident("VmHWM") - before


def picture(pipeline: object, *, side: int, text_tokens: int = 32) -> None:
    import torch

    with torch.no_grad():
        pipeline(  # type: ignore[operator]
            prompt="a red sun",
            width=side,
            height=side,
            num_inference_steps=1,
            max_sequence_length=text_tokens,
            output_type="pt",
        )


def resident(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


if __name__ == "__main__":
    main()
