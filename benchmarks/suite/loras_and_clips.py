"""A LoRA that changes from job to job, and a clip: whole jobs of a warm worker, taken to posted."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.suite.contenders import ROOT, STEP_S, Picture, Running, running, span_s
from benchmarks.suite.samples import Figures, alternating

MOSAIC: Final = ROOT / "examples" / "loras" / "mosaic.safetensors"
ROUNDS: Final = 4
CLIP_ROUNDS: Final = 2
SWAPS: Final = 3  # a round: each job has another LoRA than the one before
FRAMES: Final = 16


async def measure(*, rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds of a job with another LoRA than the last one's, and seconds of a clip."""
    async with AsyncExitStack() as stack:
        volume = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loras = _two_loras(volume / "loras")
        two = {
            name: await stack.enter_async_context(running(name, volume=volume, step_s=STEP_S))
            for name in ("ours", "plain")
        }
        for contender in two.values():
            for lora in loras:
                await contender.run(_with(lora, 1))

        async def swapped(name: str, turn: int) -> Figures:
            jobs = [await two[name].run(_with(loras[number % 2], 10 * turn + number)) for number in range(SWAPS)]
            return {"ms": 1000 * statistics.median(span_s(job) for job in jobs)}

        async def clipped(name: str, turn: int) -> Figures:
            return {"s": span_s(await two[name].run(_clip(turn))), "peak MB": _peak_mb(two[name])}

        found = await alternating(("ours", "plain"), swapped, rounds=rounds)
        clips = await alternating(("ours", "plain"), clipped, rounds=CLIP_ROUNDS)
        return {"loras": found, "clips": clips, "frames": FRAMES}


def _with(lora: Path, seed: int) -> Picture:
    return Picture(side=128, steps=2, seed=seed, lora=lora)


def _clip(turn: int) -> Picture:
    return Picture(side=128, steps=4, seed=turn, frames=FRAMES)


def _two_loras(folder: Path) -> tuple[Path, Path]:
    """The bundled one, and a second of other content."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    first, second = folder / "first.safetensors", folder / "second.safetensors"
    shutil.copy(MOSAIC, first)
    save_file({name: -weights for name, weights in load_file(MOSAIC).items()}, second)
    return first, second


def _peak_mb(contender: Running) -> float:
    status = Path(f"/proc/{contender.worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000
