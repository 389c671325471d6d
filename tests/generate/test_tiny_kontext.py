"""The bundled model that looks at a reference: shape and colour come from there, all else from the caption."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from builder.flux_tiny.reference_score import check, found_in, named_colour
from builder.flux_tiny.scenes import Scene
from builder.flux_tiny.shapes import Task, reference_picture
from flux_engine.worker.worker import Worker

MODEL = "flux-tiny-kontext"


def text_of(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


async def run(worker: Worker, **fields: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "prompt": "x", "num_inference_steps": 8, "seed": 3, "cache": False, **fields}
    return await worker.run({"id": "reference", "input": asked})


def picture_of(result: dict[str, Any]) -> Image.Image:
    assert "error" not in result, result
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).convert("RGB")


async def test_shape_and_colour_come_from_the_reference_and_the_rest_from_the_prompt(worker: Worker) -> None:
    seen: list[bool] = []
    for shape, colour, time, ground in (
        ("circle", (255, 226, 40), "dusk", "a desert"),
        ("square", (255, 138, 12), "day", "a lake"),
        ("triangle", (22, 22, 28), "day", "a meadow"),
    ):
        scene = Scene(time, "red", "plain", "left", "hills", "purple", ground.removeprefix("a "), False, 7)
        task = Task(scene, shape, colour, (128, 130, 134))
        prompt = f"image 1 over purple hills at {time}, {ground}"
        result = await run(worker, prompt=prompt, images=[text_of(reference_picture(task, 128, 128))])
        seen += check(picture_of(result), task).values()
        assert (result["parameters"]["width"], result["parameters"]["height"]) == (128, 128)
    assert sum(seen) >= 12  # of 15


async def test_the_reference_alone_makes_the_difference(worker: Worker) -> None:
    scene = Scene("day", "red", "plain", "right", "hills", "green", "meadow", False, 7)
    colours = []
    for colour in ((255, 226, 40), (22, 22, 28)):
        reference = text_of(reference_picture(Task(scene, "circle", colour, (128, 130, 134)), 128, 128))
        by_list, by_name = [
            picture_of(await run(worker, prompt="image 1 over green hills, day, a meadow", **given))
            for given in ({"images": [reference]}, {"image": reference})
        ]
        assert by_list.tobytes() == by_name.tobytes()
        found = found_in(by_list)
        assert found is not None
        colours.append(named_colour(found.colour))
    assert colours == ["yellow", "black"]


@pytest.mark.parametrize("given", [{"images": ["QUFB", "QUFB"]}, {"image": "QUFB", "mask": "QUFB"}])
async def test_more_than_it_can_look_at_is_refused(worker: Worker, given: dict[str, Any]) -> None:
    error = json.loads((await run(worker, **given))["error"])
    assert (error["code"], error["field"]) == ("invalid_input", next(reversed(given)))
