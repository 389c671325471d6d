"""A job's result -> OpenAI's ImagesResponse, and the models of an endpoint -> OpenAI's list of models.

What OpenAI has no word for stands beside it: `warnings`, `model`, each picture's `seed`, and the work in `usage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from flux_engine.job.base import JsonObject
from flux_engine.openai.request import Asked

NO_TOKENS: Final = {  # the client's type wants them; pictures are counted by work here
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


def images_body(result: Mapping[str, Any], asked: Asked, *, created: int) -> JsonObject:
    """The answer of `/v1/images/generations` and `/edits` for the result of the job that was asked for."""
    first = result["images"][0]
    body: JsonObject = {
        "created": created,
        "data": [_image(image, result) for image in result["images"]],
        "background": "opaque",
        "output_format": output_format(result),
        "quality": asked.wishes.quality,
        "size": f"{first['width']}x{first['height']}",
        "usage": usage_of(result),
        "model": result["model"]["id"],
        "warnings": [*asked.warnings, *result["warnings"]],
    }
    if asked.wishes.safety_identifier is not None:
        body["safety_identifier"] = asked.wishes.safety_identifier
    return body


def models_body(models: Iterable[str], *, created: int) -> JsonObject:
    """The answer of `/v1/models`; the first is the one that a request gets that names none."""
    return {"object": "list", "data": [model_body(name, created=created) for name in models]}


def model_body(name: str, *, created: int) -> JsonObject:
    """The answer of `/v1/models/NAME`."""
    owner, _, _ = name.rpartition("/")
    return {"id": name, "object": "model", "created": created, "owned_by": owner or "flux-engine"}


def usage_of(result: Mapping[str, Any]) -> JsonObject:
    return NO_TOKENS | dict(result.get("usage") or {})


def output_format(result: Mapping[str, Any]) -> str:
    """What the files are, by their content type: a picture over the platform's limit may come as another."""
    return str(result["images"][0]["content_type"]).rpartition("/")[2]


def _image(image: Mapping[str, Any], result: Mapping[str, Any]) -> JsonObject:
    content: JsonObject = {name: image[name] for name in ("b64_json", "url") if name in image}
    prompt = result.get("enhanced_prompt")
    return content | {"seed": image["seed"]} | ({"revised_prompt": prompt} if prompt else {})
