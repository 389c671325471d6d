"""What marks and manifests cost: processor milliseconds and bytes a picture, as docs/compliance.md states them.

python -m benchmarks.provenance
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from flux_engine.job.formats import IMAGE_FORMATS
from flux_engine.media.encode import encode_image
from flux_engine.media.marks.credential import kept_credential
from flux_engine.media.marks.manifest import Manifests
from flux_engine.media.marks.marker import Marker, Marks
from flux_engine.media.marks.statement import Ingredient, Statement

SIDES: Final = (256, 1024)
ROUNDS: Final = 15
STATEMENT: Final = Statement(
    model="black-forest-labs/FLUX.1-schnell", revision="741f7c3ce8b383c54771c7003378a50191e9efe9", is_composite=False
)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        signing = Manifests(kept_credential(Path(folder)))
        markers: Mapping[str, Marker] = {"marks": Marks(), "c2pa": signing}
        sys.stdout.write("| side | format | file, bytes | encoding, ms | marks | c2pa | c2pa of an edit |\n")
        sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- |\n")
        for side in SIDES:
            _table(side, markers)
    return 0


def _table(side: int, markers: Mapping[str, Marker]) -> None:
    picture = _picture(side)
    given = markers["c2pa"].marked(_encoded(picture, "png"), "png", STATEMENT)
    edit = Statement(
        model=STATEMENT.model,
        revision=STATEMENT.revision,
        is_composite=True,
        ingredients=(Ingredient(field="image", data=given),),
    )
    for output_format in IMAGE_FORMATS:
        data = _encoded(picture, output_format)
        cells = [f"{_least_ms(partial(_encoded, picture, output_format)):.1f}"]
        for marker, statement in ((markers["marks"], STATEMENT), (markers["c2pa"], STATEMENT), (markers["c2pa"], edit)):
            mark = partial(marker.marked, data, output_format, statement)
            cells.append(f"{_least_ms(mark):.1f} ms, {len(mark()) - len(data):+} bytes")
        sys.stdout.write(f"| {side} | {output_format} | {len(data)} | {' | '.join(cells)} |\n")


def _encoded(picture: Image.Image, output_format: str) -> bytes:
    made_from = {"prompt": "a red sun", "seed": 7, "model": {"id": STATEMENT.model}, "parameters": {"steps": 4}}
    return encode_image(picture, output_format, quality=90, made_from=made_from)


def _least_ms(call: Callable[[], bytes]) -> float:
    """Processor time, so that other processes of the machine do not count."""
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        spent.append((time.process_time() - began) * 1000)
    return min(spent)


def _picture(side: int) -> Image.Image:
    """As detailed as a photograph: soft shapes and a little grain."""
    random = np.random.default_rng(7)
    coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = random.normal(0, 4, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(coarse, np.float32) + grain, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    sys.exit(main())
