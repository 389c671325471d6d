"""What a worker would refuse never reaches the queue: pictures, masks and LoRAs that a job brings or names."""

from __future__ import annotations

import base64
import io
import json
import struct
from typing import Any, Final

import pytest
from PIL import Image

from tests.gateway.world import SUN, World, picture

SUN_PNG: Final = base64.b64encode(picture(5)).decode()
REDRAWN: Final = {**SUN, "image": SUN_PNG, "strength": 0.5}


def png(mode: str = "RGB", size: tuple[int, int] = (64, 64), kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def safetensors(header: Any, data: bytes = b"") -> str:
    text = json.dumps(header).encode()
    return base64.b64encode(struct.pack("<Q", len(text)) + text + data + b"\0" * 300).decode()


REFUSED: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "no base64": ({"image": "a picture of a sun"}, "image", "invalid_input"),
    "base64 of text": ({"image": base64.b64encode(b"no picture at all").decode()}, "image", "invalid_input"),
    "a page": ({"image": base64.b64encode(b"<!doctype html><title>Log in</title>").decode()}, "image", "invalid_input"),
    "a truncated PNG": ({"image": base64.b64encode(picture(5)[:100]).decode()}, "image", "invalid_input"),
    "a TIFF": ({"image": png(kind="TIFF")}, "image", "invalid_input"),
    "17 megapixels": ({"image": png("1", (4200, 4200))}, "image", "input_fetch_failed"),
    "a path": ({"image": "C:\\pictures\\sun.png"}, "image", "invalid_input"),
    "http": ({"image": "http://example.com/sun.png"}, "image", "invalid_input"),
    "this machine": ({"image": "https://127.0.0.1/sun.png"}, "image", "input_fetch_failed"),
    "the metadata service": ({"image": "https://169.254.169.254/latest"}, "image", "input_fetch_failed"),
    "a password": ({"image": "https://a:b@example.com/sun.png"}, "image", "input_fetch_failed"),
    "a mask of text": ({"mask": base64.b64encode(b"white, please").decode()}, "mask", "invalid_input"),
    "a LoRA of a machine": ({"loras": ["/etc/passwd"]}, "loras", "invalid_input"),
    "a LoRA of this machine": ({"loras": ["https://[::1]/a.safetensors"]}, "loras", "input_fetch_failed"),
    "a LoRA of noise": ({"loras": [base64.b64encode(b"\0noise" * 100).decode()]}, "loras", "lora_invalid"),
    "a LoRA without its data": (
        {"loras": [safetensors({"a.lora_A.weight": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 324]}})]},
        "loras",
        "lora_invalid",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_a_worker_would_refuse(name: str, gw: World) -> None:
    fields, field, code = REFUSED[name]
    answer = await gw.post("/generate-image", json=REDRAWN | fields)
    said = answer.json()
    assert (answer.status_code, said["code"], said["field"]) == (422, code, field), said
    assert said["retryable"] is False
    assert gw.platform.endpoint.queue.jobs == ()
    assert (await gw.get("/usage")).json()["work"][0]["used"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"image": SUN_PNG},
        {"image": f"data:image/png;base64,{SUN_PNG}"},
        {"image": SUN_PNG, "mask": png("L")},
        {"image": "https://example.com/sun.png"},
        {"loras": ["mosaic", "owner/repo", "civitai:5"]},
    ],
)
async def test_what_a_worker_may_take(fields: dict[str, Any], gw: World) -> None:
    sources = {} if "loras" in fields else {"strength": 0.5}
    answer = await gw.post("/generate-image", json=SUN | sources | fields)
    assert answer.status_code == 202, answer.text
    job = await gw.hand.take()
    assert {name: job.payload["input"][name] for name in fields} == fields  # type: ignore[index]
