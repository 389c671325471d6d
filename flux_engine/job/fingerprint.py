"""The fingerprint of a result: one SHA-256 over everything that its files depend on. Equal fingerprints, equal bytes.

The parameters are those of `ImageJob.parameters()`, with every default filled in, so aliases, order and spelled-out
defaults make no difference. Parameters without effect on the files are left out here. Nothing is looked up or read: the
caller passes in the model's identity and the content hashes of the inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

SHA256: Final = "[0-9a-f]{64}"  # in hexadecimal, as a pattern; fingerprints have the same form
GENERATION_VERSION: Final = 5  # raised whenever the same parameters give other pixels or other bytes

WITHOUT_EFFECT_ON_BYTES: Final = ("preview", "cache", "response_format", "metadata", "aspect_ratio", "megapixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The weights, their precision, and the other choices of a plan that show in a picture (`way`)."""

    id: str
    revision: str
    precision: str
    way: str = ""
    filter: str = ""  # the content filter that decides which pictures there are; none where empty


def fingerprint(parameters: Mapping[str, Any], *, model: ModelIdentity, inputs: Mapping[str, Any] | None = None) -> str:
    """64 hexadecimal digits: the same for jobs whose files are the same.

    `inputs` replaces parameters that only name their content by its hashes:
    `{"image": SHA256, "loras": [{"sha256": SHA256, "scale": 0.8}]}`. Raises ValueError for NaN and infinity, TypeError
    for a value that JSON cannot hold.
    """
    made_of = made_from({**parameters, **(inputs or {})})
    described = {
        "generation_version": GENERATION_VERSION,
        "model": {name: value for name, value in asdict(model).items() if value or name != "filter"},
        "parameters": {name: value for name, value in made_of.items() if value is not None},
    }
    return hashlib.sha256(_canonical_json(described).encode()).hexdigest()


def made_from(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that the files depend on; also what a file's metadata may state about its making."""
    effective = {name: value for name, value in parameters.items() if name not in WITHOUT_EFFECT_ON_BYTES}
    if effective.get("output_format") == "png":
        effective.pop("output_quality", None)
    if (effective.get("true_cfg_scale") or 1) <= 1:
        effective.pop("negative_prompt", None)  # read only with classifier-free guidance
    if not effective.get("enhance_prompt"):
        effective.pop("enhance_prompt", None)  # as before there was such a field
    if "loras" in effective:
        effective["loras"] = [lora for lora in effective["loras"] if lora["scale"] != 0]
    return effective


def _canonical_json(value: object) -> str:
    """Sorted, without spaces, ASCII only, one spelling for each number."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 4.0 is 4, and -0.0 is 0
    return value
