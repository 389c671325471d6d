"""What a worker makes of a wish where nobody disturbs it, as pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from flux_engine.build import build_worker
from flux_engine.settings import Settings


async def undisturbed(wishes: Iterable[Mapping[str, Any]], folder: Path) -> AsyncIterator[bytes]:
    """The pixels of each wish, made in this process without any cache of the storm's."""
    settings = Settings.from_environment(
        {"FLUX_MODEL": "flux-tiny", "MODEL_VOLUME": str(folder / "volume"), "OUTPUT_DIR": str(folder / "outputs")}
    )
    worker = build_worker(settings, is_local=True, cache_folder=folder / "cache")
    try:
        for number, wish in enumerate(wishes):
            fields = {**wish, "response_format": "b64_json", "cache": False}
            result = await worker.run({"id": f"undisturbed-{number}", "input": fields})
            yield pixels(base64.b64decode(result["images"][0]["b64_json"]))
    finally:
        await worker.close()


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.convert("RGB").tobytes()
