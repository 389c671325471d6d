"""The README's pictures, made by the bundled model: `python -m examples.gallery`.

Six landscapes in one sheet, the last of them once more with the mosaic LoRA, and six frames of a video.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg
from PIL import Image

from flux_engine.build import build_worker
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs" / "images"
MOSAIC: Final = ROOT / "examples" / "loras" / "mosaic.safetensors"
PROMPTS: Final = (
    "a large red sun on the left over purple mountains at dusk, a calm lake and pine trees",
    "a yellow sun on the right over green hills at noon, a meadow",
    "a white moon in the middle over blue mountains at night, a snowfield",
    "an orange sun on the left over brown mountains at dawn, a desert",
    "a red sun in the middle over grey hills at sunrise, a lake with pine trees",
)
FRAMES: Final = 6


async def main() -> None:
    worker = build_worker(Settings.from_environment({"OUTPUT_DIR": tempfile.mkdtemp()}), is_local=False)
    pictures = [await picture(worker, prompt, seed=7 + i) for i, prompt in enumerate(PROMPTS)]
    lora = base64.b64encode(MOSAIC.read_bytes()).decode()
    pictures.append(await picture(worker, PROMPTS[0], seed=7, loras=[{"path": lora}]))
    IMAGES.mkdir(parents=True, exist_ok=True)
    side_by_side(pictures, columns=3).save(IMAGES / "flux-tiny.png")
    side_by_side(await frames(worker), columns=FRAMES).save(IMAGES / "video.png")
    await worker.close()


async def picture(worker: Worker, prompt: str, **fields: Any) -> Image.Image:
    result = await worker.run({"id": "gallery", "input": {"prompt": prompt, "cache": False, **fields}})
    if "error" in result:
        raise SystemExit(json.loads(result["error"])["message"])
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"])))


async def frames(worker: Worker) -> list[Image.Image]:
    """FRAMES frames of the first example, evenly from its first to its last."""
    job = json.loads((ROOT / "examples" / "sun_left_to_right.json").read_text(encoding="utf-8"))
    result = await worker.run({"id": "gallery", "input": {**job["input"], "cache": False}})
    if "error" in result:
        raise SystemExit(json.loads(result["error"])["message"])
    return await asyncio.to_thread(
        some_of, base64.b64decode(result["video"]["b64_json"]), result["video"]["num_frames"]
    )


def some_of(clip: bytes, num_frames: int) -> list[Image.Image]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(clip)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path), f"{folder}/%03d.png"]
        subprocess.run(command, check=True)
        numbers = [1 + round(i * (num_frames - 1) / (FRAMES - 1)) for i in range(FRAMES)]
        return [Image.open(Path(folder) / f"{number:03}.png").copy().resize((160, 160)) for number in numbers]


def side_by_side(pictures: list[Image.Image], *, columns: int) -> Image.Image:
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (width * columns, height * rows))
    for i, one in enumerate(pictures):
        sheet.paste(one, ((i % columns) * width, (i // columns) * height))
    return sheet


if __name__ == "__main__":
    asyncio.run(main())
