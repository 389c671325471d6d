"""What came of it, as a page of Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final

from builder.images.pictures import Run
from builder.images.store import Layer

MB: Final = 1_000_000
LONGEST: Final = 110


def page(layers: Mapping[str, Sequence[Layer]], runs: Sequence[Run], *, built: Mapping[str, str]) -> str:
    parts = [
        "# Images, as last built\n",
        "Written by `make images-test`: both Dockerfiles built by buildah (chroot isolation) on a base that\n"
        "debootstrap makes of the same Debian release, here with torch's CPU build: its default one brings the\n"
        "CUDA libraries besides. Redis is the wheel's Valkey with the compose file's options, the bucket moto's S3.\n"
        "Each run has processes, volumes and a network of its own, without a way out.\n",
    ]
    for image, held in layers.items():
        parts.append(f"## {image}\n")
        parts.append("| layer | MB |\n| --- | --- |")
        parts += [f"| `{_short(layer.instruction)}` | {layer.size_bytes / MB:.1f} |" for layer in held]
        total = sum(layer.size_bytes for layer in held) / MB
        parts.append(f"| all of it, built in {built[image]} | {total:.0f} |\n")
    parts.append("## Run to a picture\n")
    parts.append(
        "| what | user | healthy after, s | to the picture, s | picture, bytes | fresh volumes written |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for run in runs:
        healthy = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run.healthy_after_s.items())
        volumes = ", ".join(run.volumes)
        parts.append(f"| {run.what} | {run.user} | {healthy} | {run.seconds:.1f} | {run.size_bytes} | {volumes} |")
    parts.append(f"\nMade on {os.cpu_count()} cores, at a load of {os.getloadavg()[1]:.1f}.")
    return "\n".join(parts) + "\n"


def _short(instruction: str) -> str:
    text = instruction.replace("|", "/").replace("`", "")
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
