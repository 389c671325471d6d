"""Either worker with denoising steps that each last a given time: `python -m benchmarks.suite.paced SECONDS WORKER`.

A card takes its own time for a step, whatever the machine around it does meanwhile, and the CPU is free in it. A step
of the bundled model on a CPU is neither: it grows and shrinks with everything beside it, and a ratio with it. WORKER is
handler.py, or the module of the plain worker.
"""

from __future__ import annotations

import functools
import runpy
import sys
import time
from typing import Any

from flux_engine.models.tuning.libraries import import_diffusers


def pace(transformer: Any, step_s: float) -> None:
    """Let every call of this class of transformers last at least `step_s`."""
    forward = transformer.forward

    @functools.wraps(forward)
    def paced(self: Any, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        found = forward(self, *arguments, **named)
        time.sleep(max(0.0, began + step_s - time.perf_counter()))
        return found

    transformer.forward = paced


def main() -> None:
    step_s, worker = float(sys.argv[1]), sys.argv[2]
    sys.argv = [worker]
    if worker.endswith(".py"):
        pace(import_diffusers().FluxTransformer2DModel, step_s)
        runpy.run_path(worker, run_name="__main__")
    else:
        import diffusers

        pace(diffusers.FluxTransformer2DModel, step_s)
        runpy.run_module(worker, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
