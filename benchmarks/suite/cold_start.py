"""From a process's start to its first look for a job and to its first picture, with a job waiting: where it goes."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.suite.contenders import Picture, cpu_s, running
from benchmarks.suite.samples import Figures, alternating

ROUNDS: Final = 5
STARTS: Final = {"ours": 2, "plain": 1}  # a round: a quicker start sees less of what the machine does meanwhile
LIBRARIES: Final = 12
IMPORTED: Final = {  # what each has imported by then
    "ours, first look": "import handler",
    "ours, first picture": "from flux_engine.models.tuning.libraries import import_diffusers as d; import handler;"
    "d().FluxPipeline; import transformers; transformers.CLIPTextModel, transformers.T5EncoderModel",
    "plain, first look": "import boto3, runpod, torch; from diffusers import FluxPipeline;"
    "import transformers; transformers.CLIPTextModel, transformers.T5EncoderModel",
}


async def measure(*, rounds: int = ROUNDS) -> dict[str, Any]:
    """Seconds by contender, and by phase for ours; modules imported."""
    phases: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as volume:

        async def once(name: str, _round: int) -> Figures:
            starts = []
            for _ in range(STARTS[name]):
                figures, seen = await _first_picture(name, Path(volume))
                starts.append(figures)
                for phase, ms in seen.items():
                    phases.setdefault(phase, []).append(ms)
            return {figure: statistics.fmean(start[figure] for start in starts) for figure in starts[0]}

        found = await alternating(("ours", "plain"), once, rounds=rounds)
    counted = {name: await asyncio.to_thread(_counted, code) for name, code in IMPORTED.items()}
    calls = await asyncio.gather(*(asyncio.to_thread(_system_calls, code) for code in IMPORTED.values()))
    for name, count in zip(IMPORTED, calls, strict=True):
        counted[name]["system calls"] = count
    return {"figures": found, "phases_ms": phases, "imports": counted}


async def _first_picture(name: str, volume: Path) -> tuple[Figures, dict[str, float]]:
    async with running(name, workers=0, volume=volume) as contender:
        endpoint = contender.platform.endpoint
        job_id = contender.submit(Picture())
        began = endpoint.now()
        (worker,) = await contender.pool.start()
        job = await contender.result(job_id)
        look_s, picture_s = (job.started_at or 0.0) - began, (job.finished_at or 0.0) - began
        figures = {"first look s": look_s, "first picture s": picture_s, "CPU s": cpu_s(worker.pid)}
        output: Any = job.result["output"]
        if contender.is_plain:
            return figures, {}
        phases = dict(output["model"]["cold_start"])
        phases |= {f"{stage}_ms": output["timings"][f"{stage}_ms"] for stage in ("text", "denoise", "decode", "encode")}
        return figures, phases | {"first look_ms": look_s * 1000, "first picture_ms": picture_s * 1000}


def _counted(code: str) -> dict[str, Any]:
    """Of a process that imports `code`: modules, and self milliseconds by library."""
    counting = f"{code}\nimport sys\nprint(len(sys.modules))"
    done = subprocess.run(
        (sys.executable, "-X", "importtime", "-c", counting), capture_output=True, text=True, check=True
    )
    by_library: dict[str, float] = {}
    for line in done.stderr.splitlines():
        own = line.removeprefix("import time:").partition("|")[0].strip()
        library = line.rpartition("|")[2].strip().partition(".")[0]
        if own.isdigit():
            by_library[library] = by_library.get(library, 0.0) + int(own) / 1000
    largest = sorted(by_library, key=lambda library: -by_library[library])[:LIBRARIES]
    return {
        "modules": int(done.stdout.split()[-1]),
        "ms by library": {library: by_library[library] for library in largest},
        "ms of all": sum(by_library.values()),
    }


def _system_calls(code: str) -> int | None:
    """Of the same, where strace is at hand."""
    if shutil.which("strace") is None:
        return None
    with tempfile.NamedTemporaryFile() as counts:
        command = ("strace", "-f", "-c", "-o", counts.name, sys.executable, "-c", code)
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        total = next(line for line in Path(counts.name).read_text().splitlines() if line.endswith("total"))
        return int(total.split()[3])
