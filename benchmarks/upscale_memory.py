"""What `upscale` of 512x512 to 2048x2048 takes against the plan's room to work in, on the CPU.

    python -m benchmarks.upscale_memory

Each way runs in a process of its own beside a loaded model. Counted is what is resident at the peak beyond what was
resident before: it holds the tile that is worked on, which the plan bounds, and the larger picture, which lies in the
host's memory on any machine. The networks have the filters of RealESRGAN_x4 and one of its 23 blocks: the memory is
that of the last layers, which stand at full size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.fleet import table
from benchmarks.plan_memory import ALLOCATOR, plan_of, resident
from flux_engine.generate.enlarge import ByUpscaler, Enlarging, enlarging_of
from flux_engine.generate.sampling import Spent
from flux_engine.generate.text import PromptEncoder
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.models import catalog
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.units import MIB
from tests.conftest import context_for

if TYPE_CHECKING:
    from PIL.Image import Image

WAYS: Final = (  # scale of the network, 0 where the model redraws tiles; side of the given picture; factor
    (4, 512, 4),
    (2, 512, 4),
    (4, 1024, 2),
    (0, 512, 4),
)
BYTES_OF_PIXEL: Final = 24  # of the larger picture: 16 of a mosaic, 4 each of what is beneath it and of what it becomes
MEASURED: Final = """
import json, sys
from benchmarks.upscale_memory import measured_peak
scale, side, factor = map(int, sys.argv[1:])
print(json.dumps(measured_peak(scale, side, factor)))
"""


def main() -> None:
    room, rows = plan_of(catalog.FLUX_TINY).activation_bytes, []
    for scale, side, factor in WAYS:
        command = [sys.executable, "-c", MEASURED, *map(str, (scale, side, factor))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR)
        peak = json.loads(done.stdout.splitlines()[-1])
        larger = (side * factor) ** 2 * BYTES_OF_PIXEL
        way = f"a network of x{scale}" if scale else "tiles redrawn by the model"
        sizes = (f"{size / MIB:.0f}" for size in (room, larger, peak))
        rows.append((way, f"{side} to {side * factor}", *sizes, f"{peak / (room + larger):.2f}"))
    header = ("way", "sides", "plan's room", "larger picture", "measured", "measured / both")
    print(table(header, rows))
    print("MiB, float32, one thread, flux-tiny's plan")


def measured_peak(scale: int, side: int, factor: int) -> int:
    """Bytes resident at the peak of enlarging, beyond those before it."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    enlarging = _by_network(scale, factor) if scale else _by_model(side, factor)
    if scale:
        _enlarged(enlarging, Image.new("RGB", (32, 32)))  # once, so that libraries have run
    picture = Image.effect_noise((side, side), 60).convert("RGB")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    larger = _enlarged(enlarging, picture)
    peak = resident("VmHWM") - before
    if larger.size != (side * factor, side * factor):
        raise RuntimeError(f"the picture became {larger.size}")
    return peak


def _enlarged(enlarging: Enlarging, picture: Image) -> Image:
    return enlarging.enlarged(picture, 1, on_step=lambda step: None)


def _by_network(scale: int, factor: int) -> Enlarging:
    from safetensors.torch import save_file

    from flux_engine.models.beside.upscaler import import_spandrel, load_upscaler

    import_spandrel()
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "network.safetensors"
        save_file(dict(RRDBNet(num_filters=64, num_blocks=1, scale=scale).state_dict()), path)
        network = load_upscaler(path, device="cpu")
    room = plan_of(catalog.FLUX_TINY).activation_bytes
    return ByUpscaler(network=network, factor=factor, max_bytes=room, spent=Spent())


def _by_model(side: int, factor: int) -> Enlarging:
    from tests.generate.conftest import loaded

    spec = catalog.FLUX_TINY
    plan = plan_of(spec)
    tuned = load_tuned(spec, Source(folder=BUNDLED_FOLDER, revision="1"), plan, device="cpu")
    model = loaded(spec, tuned.pipeline)
    written = {"prompt": "a red sun", "seed": 1, "upscale": factor, "num_inference_steps": 5, "size": f"{side}x{side}"}
    job = parse_job(Request(id="upscale", input=written), context_for(spec))
    if not isinstance(job, ImageJob):
        raise TypeError("no image job")
    embeddings = PromptEncoder().encode(model, job, job.prompt)
    model.pipeline("a red sun", width=64, height=64, num_inference_steps=1, max_sequence_length=16)
    enlarging = enlarging_of(model, job, embeddings, size=(side, side), upscaler=None, spent=Spent())
    if enlarging is None:
        raise RuntimeError("nothing enlarges")
    return enlarging


if __name__ == "__main__":
    main()
