"""What the content filter costs and how well it tells, as docs/compliance.md states it.

python -m benchmarks.content_filter

A classifier of the usual one's size (ViT-base, 224 pixels, random weights: time does not depend on them) looks at
pictures; the small one of builder/flux_tiny/night_filter.py says its accuracy on flux-tiny's pictures.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from PIL import Image

from builder.flux_tiny import night_filter
from flux_engine.models.beside.content_filter import ContentFilter, find_filter

ROUNDS: Final = 3
SIDES: Final = (256, 1024)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder)
        accuracy = night_filter.make(volume / "models" / "small")
        sys.stdout.write(f"small ViT, day and night: {accuracy:.0%} of {2 * night_filter.TRIED_ON} unseen pictures\n")
        _save_usual(volume / "models" / "usual")
        for name in ("small", "usual"):
            judge = find_filter(name, volume=volume, threshold=0.5, labels=())
            for side in SIDES:
                ms = _least_ms(judge, side)
                sys.stdout.write(f"{name}, {side} pixels: {ms:.0f} ms of one processor a picture\n")
    return 0


def _save_usual(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    labels = {0: "normal", 1: "nsfw"}
    ViTForImageClassification(ViTConfig(id2label=labels, label2id={"normal": 0, "nsfw": 1})).save_pretrained(folder)
    preprocessing = night_filter.preprocessing() | {"size": {"height": 224, "width": 224}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")


def _least_ms(judge: ContentFilter, side: int) -> float:
    picture = Image.new("RGB", (side, side), "orange")
    judge.judge(picture)
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        judge.judge(picture)
        spent.append((time.process_time() - began) * 1000)
    return min(spent)


if __name__ == "__main__":
    sys.exit(main())
