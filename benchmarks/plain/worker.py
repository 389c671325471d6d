"""The plain worker: pictures, LoRAs and clips by one handler.

Input: `prompt`, `width`, `height`, `steps`, `seed`, `lora` (a file), `format` (png, jpg), `frames` (a clip). `MODEL` is
the folder of the model. With `BUCKET_ENDPOINT_URL` set results go there and come back as URLs, else inline.
"""

from __future__ import annotations

import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import boto3
import runpod
import torch
from botocore.config import Config
from diffusers import FluxPipeline
from diffusers.utils import export_to_video

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32

pipeline = FluxPipeline.from_pretrained(os.environ["MODEL"], torch_dtype=DTYPE).to(DEVICE)
pipeline.set_progress_bar_config(disable=True)

bucket = None
if "BUCKET_ENDPOINT_URL" in os.environ:
    bucket = boto3.client(
        "s3",
        endpoint_url=os.environ["BUCKET_ENDPOINT_URL"],
        aws_access_key_id=os.environ["BUCKET_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["BUCKET_SECRET_ACCESS_KEY"],
        region_name=os.environ.get("BUCKET_REGION", "us-east-1"),
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def handler(job: dict[str, Any]) -> dict[str, Any]:
    asked = job["input"]
    if "lora" in asked:
        pipeline.load_lora_weights(asked["lora"])
    try:
        data, kind = clip(asked) if "frames" in asked else picture(asked)
    finally:
        if "lora" in asked:
            pipeline.unload_lora_weights()
    if bucket is None:
        return {"result": base64.b64encode(data).decode()}
    place = {"Bucket": os.environ["BUCKET_NAME"], "Key": f"{job['id']}.{kind}"}
    bucket.put_object(**place, Body=data)
    return {"result": bucket.generate_presigned_url("get_object", Params=place, ExpiresIn=86_400)}


def picture(asked: dict[str, Any]) -> tuple[bytes, str]:
    image, buffer = painted(asked, asked["seed"]), io.BytesIO()
    if asked.get("format") == "jpg":
        image.save(buffer, "JPEG", quality=90)
        return buffer.getvalue(), "jpg"
    image.save(buffer, "PNG")
    return buffer.getvalue(), "png"


def clip(asked: dict[str, Any]) -> tuple[bytes, str]:
    frames = [painted(asked, asked["seed"]) for _ in range(asked["frames"])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        export_to_video(frames, str(path), fps=24)
        return path.read_bytes(), "mp4"


def painted(asked: dict[str, Any], seed: int) -> Any:
    return pipeline(
        asked["prompt"],
        width=asked["width"],
        height=asked["height"],
        num_inference_steps=asked["steps"],
        guidance_scale=3.5,
        max_sequence_length=asked.get("max_sequence_length", 512),
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
