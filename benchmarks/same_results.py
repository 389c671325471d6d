"""What two versions of the worker answer to the same jobs, to be compared line by line.

    python -m benchmarks.same_results > after.txt            in one checkout
    python -m benchmarks.same_results > before.txt           in the other
    diff before.txt after.txt

Jobs of all kinds through `Worker.run` with the bundled model: pictures, LoRA, image-to-image, mask, video, hits, twins
and errors. One JSON object a line: the job, its fingerprint, the SHA-256 of each delivered file, and the result without
what differs from run to run (times, folders, references).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageDraw
from redis.asyncio import Redis

from flux_engine.build import build_worker
from flux_engine.settings import Settings
from tests.servers import RedisProcess

NAMESPACE: Final = "same"
LORA: Final = Path(__file__).parents[1] / "examples" / "loras" / "mosaic.safetensors"
QUICK: Final = {"prompt": "a red sun on the left, a lake, day", "width": 128, "height": 128, "num_inference_steps": 4}
FILM: Final = {**QUICK, "width": 64, "height": 64, "num_frames": 6, "fps": 6, "seed": 5}
MAY_DIFFER: Final = ("timings", "expires_at", "usage")


def picture(*, is_mask: bool = False) -> str:
    """A disc, in base64 of a PNG."""
    image = Image.new("RGB", (96, 96), "black" if is_mask else "navy")
    ImageDraw.Draw(image).ellipse((24, 24, 72, 72), fill="white" if is_mask else "orange")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def jobs() -> dict[str, Any]:
    """What is sent, by the job's id, in order."""
    redrawn = {**QUICK, "seed": 3, "image": picture()}
    mask = picture(is_mask=True)
    inputs: dict[str, Any] = {
        "plain": {**QUICK, "seed": 7},
        "no seed": QUICK,
        "three": {**QUICK, "seed": 5, "num_images": 3},
        "jpg": {**QUICK, "seed": 7, "output_format": "jpeg", "output_quality": 50},
        "webp": {**QUICK, "seed": 7, "output_format": "webp"},
        "guided": {**QUICK, "seed": 7, "guidance_scale": 4.5, "true_cfg_scale": 3.0, "negative_prompt": "lake"},
        "aliases": {"text": "ein Gemälde", "size": "96x160", "steps": 3, "seed": 1, "metadata": {"order": 5}},
        "preview": {**QUICK, "seed": 8, "preview": True, "cache": False},
        "inline": {**QUICK, "seed": 9, "response_format": "b64_json", "cache": False},
        "inline again": {**QUICK, "seed": 9, "response_format": "b64_json"},
        "lora": {**QUICK, "seed": 7, "loras": ["mosaic"]},
        "lora, half": {**QUICK, "seed": 7, "lora_weights": "mosaic.safetensors", "lora_scale": 0.5},
        "redrawn": {**redrawn, "strength": 0.6},
        "masked": {**redrawn, "mask": mask, "strength": 0.9},
        "a hit": {**QUICK, "seed": 7, "metadata": {"try": 2}},
        "a hit, inline": {**QUICK, "seed": 7, "response_format": "b64_json"},
        "video": {**FILM, "type": "video", "keyframes": {"0": "a red sun, day", "3": "a moon at night"}},
        "feedback": {**FILM, "mode": "feedback", "motion": {"zoom": 1.05}, "output_format": "gif"},
        "loop": {**FILM, "loop": True, "output_format": "webp", "response_format": "b64_json"},
        "a hit of a video": {**FILM, "type": "video", "keyframes": {"0": "a red sun, day", "3": "a moon at night"}},
        "width": {**QUICK, "width": 5},
        "unknown field": {**QUICK, "widht": 64},
        "unknown model": {**QUICK, "model": "flux-tinny"},
        "missing model": {**QUICK, "model": "schnell"},
        "missing lora": {**QUICK, "loras": ["nobody-has-it"]},
        "no lora": {**QUICK, "loras": [base64.b64encode(b"no safetensors file" * 40).decode()]},
        "broken picture": {**QUICK, "image": base64.b64encode(b"no picture").decode()},
        "private address": {**QUICK, "image": "https://127.0.0.1/a.png"},
        "video of another model": {**FILM, "type": "video", "model": "kontext"},
    }
    raw: dict[str, Any] = {name: {"id": name, "input": fields} for name, fields in inputs.items()}
    bucket = {"endpointUrl": "https://10.0.0.1", "accessId": "a", "accessSecret": "b", "bucketName": "pictures"}
    raw["private bucket"] = {"id": "private bucket", "input": QUICK, "s3Config": bucket}
    raw["no input"] = {"id": "no input"}
    raw["no job"] = ["no job"]
    return raw


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "redis").mkdir()
        (folder / "volume" / "loras").mkdir(parents=True)
        shutil.copy(LORA, folder / "volume" / "loras" / LORA.name)
        redis = RedisProcess(folder / "redis")
        redis.start()
        try:
            await run_all(folder, redis.url)
        finally:
            redis.kill()


async def run_all(folder: Path, redis_url: str) -> None:
    settings = Settings.from_environment(
        {
            "MODEL_VOLUME": str(folder / "volume"),
            "OUTPUT_DIR": str(folder / "outputs"),
            "REDIS_URL": redis_url,
            "CACHE_NAMESPACE": NAMESPACE,
        }
    )
    worker = build_worker(settings, is_local=True, cache_folder=folder / "cache")
    for name, raw in jobs().items():
        result = await worker.run(raw)
        show(name, await fingerprint(redis_url, name), result)
    twins = [{"id": f"twin {number}", "input": {**QUICK, "seed": 21}} for number in range(3)]
    answers = await asyncio.gather(*(worker.run(twin) for twin in twins))
    for number, result in enumerate(sorted(answers, key=lambda answer: answer["cached"])):
        show(f"twin {number}", await fingerprint(redis_url, f"twin {number}"), result)
    await worker.close()


async def fingerprint(redis_url: str, job_id: str) -> str | None:
    """As the job's status in the cache has it, once the job is over."""
    async with Redis.from_url(redis_url) as client:
        raw = await client.get(f"flux:{NAMESPACE}:task:{job_id.replace(' ', '%20').replace(',', '%2C')}")
    return json.loads(raw)["fingerprint"] if raw else None


def show(name: str, known_as: str | None, result: dict[str, Any]) -> None:
    hashes = [hashlib.sha256(data).hexdigest() for data in files_of(result)]
    line = {"job": name, "fingerprint": known_as, "files": hashes, "result": without_what_differs(result)}
    print(json.dumps(line, ensure_ascii=False, sort_keys=True), flush=True)


def files_of(result: dict[str, Any]) -> list[bytes]:
    said = [*result.get("images", ()), *(result[part] for part in ("video", "thumbnail") if part in result)]
    return [
        base64.b64decode(file["b64_json"])
        if "b64_json" in file
        else Path(unquote(urlsplit(file["url"]).path)).read_bytes()
        for file in said
    ]


def without_what_differs(result: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in result.items() if key not in MAY_DIFFER}
    if "model" in kept:
        kept["model"] = {key: value for key, value in kept["model"].items() if key != "cold_start"}
    text = re.sub(r'file://[^"]*/', "", json.dumps(kept))
    text = re.sub(r'("b64_json": ")[^"]*', r"\1", re.sub(r"reference [0-9a-f]{12}", "reference", text))
    shown: dict[str, Any] = json.loads(text)
    return shown


if __name__ == "__main__":
    asyncio.run(main())
