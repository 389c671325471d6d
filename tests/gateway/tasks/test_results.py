"""What a worker returned, taken over into the gateway's store."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_engine.gateway.tasks.results import Results
from flux_engine.results.folder import FolderStore

VIDEO = b"a video's bytes, which nobody looks into here"


def output(thumbnail: bytes) -> dict[str, Any]:
    facts = {
        "content_type": "video/mp4",
        "width": 64,
        "height": 64,
        "seed": 1,
        "sha256": hashlib.sha256(VIDEO).hexdigest(),
    }
    return {
        "video": facts | {"bytes": len(VIDEO), "b64_json": base64.b64encode(VIDEO).decode()},
        "thumbnail": {"b64_json": base64.b64encode(thumbnail).decode()},
    }


def webp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16)).save(buffer, "WEBP")
    return buffer.getvalue()


async def test_a_thumbnail_is_kept_beside_its_video(tmp_path: Path) -> None:
    results = Results(FolderStore(tmp_path))
    adopted = await results.adopt(output(webp()))
    assert adopted.thumbnail is not None
    assert (adopted.thumbnail.width, adopted.thumbnail.height) == (32, 16)
    await results.close()


@pytest.mark.parametrize("thumbnail", [b"", b"no picture", webp()[:20], b"\x89PNG\r\n"])
async def test_a_damaged_thumbnail_costs_nobody_the_video(tmp_path: Path, thumbnail: bytes) -> None:
    results = Results(FolderStore(tmp_path))
    adopted = await results.adopt(output(thumbnail))
    assert adopted.thumbnail is None
    (video,) = adopted.as_json()
    assert await results.read(video) == VIDEO
    await results.close()
