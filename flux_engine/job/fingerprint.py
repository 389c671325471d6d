"""What makes two results the same bytes: one SHA-256 over everything that the delivered files depend on.

The parameters come in as `ImageJob.parameters()` gives them, with every default filled in, so that aliases, order and
spelled-out defaults are gone already. What does not reach the files is left out here. Nothing is looked up and no file
is read: the identity of the model and the content hashes of the inputs are handed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

SHA256: Final = "[0-9a-f]{64}"  # in hexadecimal, as a pattern; fingerprints have the same form
GENERATION_VERSION: Final = 2  # raised whenever the same parameters give other pixels or other bytes

WITHOUT_EFFECT_ON_BYTES: Final = ("preview", "cache", "response_format", "metadata", "aspect_ratio", "megapixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which weights made the pixels, in what precision, and what else of the way they were run shows in a picture."""

    id: str
    revision: str
    precision: str
    way: str = ""


def fingerprint(parameters: Mapping[str, Any], *, model: ModelIdentity, inputs: Mapping[str, Any] | None = None) -> str:
    """64 hexadecimal digits, equal where the delivered bytes are equal.

    `inputs` holds the content of what the parameters only name, and stands in place of the parameter of the same
    name: `{"image": SHA256, "loras": [{"sha256": SHA256, "scale": 0.8}]}`. Raises ValueError for NaN and infinity,
    TypeError for what JSON cannot hold.
    """
    made_of = made_from({**parameters, **(inputs or {})})
    described = {
        "generation_version": GENERATION_VERSION,
        "model": asdict(model),
        "parameters": {name: value for name, value in made_of.items() if value is not None},
    }
    return hashlib.sha256(_canonical_json(described).encode()).hexdigest()


def made_from(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `parameters` that the delivered bytes depend on; what a file may say of how it was made."""
    effective = {name: value for name, value in parameters.items() if name not in WITHOUT_EFFECT_ON_BYTES}
    if effective.get("output_format") == "png":
        effective.pop("output_quality", None)
    if (effective.get("true_cfg_scale") or 1) <= 1:
        effective.pop("negative_prompt", None)  # the model reads it only where it is guided by it
    if "loras" in effective:
        effective["loras"] = [lora for lora in effective["loras"] if lora["scale"] != 0]
    return effective


def _canonical_json(value: object) -> str:
    """Sorted, without spaces, in ASCII, and with one spelling a number."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 4.0 is 4, and -0.0 is 0
    return value
