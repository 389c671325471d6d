"""The form of `.runpod/hub.json`, made from the settings: what RunPod's hub asks somebody who deploys the worker.

The rest of that file (title, GPUs, presets) is written by hand and kept. `python -m builder.docs` renews it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from flux_engine.settings import Settings

PAGE: Final = Path(__file__).parents[1] / ".runpod" / "hub.json"
DEFAULT_MODEL: Final = "black-forest-labs/FLUX.1-schnell"
SHOWN_FIRST: Final = {
    *("flux_model", "warmup", "profile", "hf_token", "redis_url"),
    *("bucket_endpoint_url", "bucket_access_key_id", "bucket_secret_access_key", "bucket_name"),
}
WORDS: Final = {"flux": "FLUX", "hf": "Hugging Face", "url": "URL", "id": "ID", "lora": "LoRA", "ttl": "TTL"}
UNSET: Final = "as the plan chooses"
START_LIMIT: Final[dict[str, Any]] = {
    "key": "RUNPOD_INIT_TIMEOUT",
    "input": {
        "name": "Start limit (seconds)",
        "type": "number",
        "description": "How long a worker may take to start before the platform calls it unhealthy",
        "default": 600,
        "min": 60,
        "max": 3600,
        "advanced": True,
    },
}


def page() -> str:
    """The file with the form made anew."""
    entry = json.loads(PAGE.read_text(encoding="utf-8"))
    entry["config"]["env"] = form()
    return json.dumps(entry, indent=2, ensure_ascii=False) + "\n"


def form() -> list[dict[str, Any]]:
    """An entry a setting, and the platform's own limit for starting."""
    schemas = Settings.model_json_schema()["properties"]
    fields = Settings.model_fields.items()
    return [
        *({"key": name.upper(), "input": _input(name, field, schemas[name])} for name, field in fields),
        START_LIMIT,
    ]


def _input(name: str, field: FieldInfo, schema: dict[str, Any]) -> dict[str, Any]:
    is_number = schema.get("type") in ("integer", "number")
    kind = "number" if is_number else "boolean" if schema.get("type") == "boolean" else "string"
    entry: dict[str, Any] = {
        "name": _title(name),
        "type": kind,
        "description": field.description,
        "default": _default(name, field.default),
        "advanced": name not in SHOWN_FIRST,
    }
    if choices := _choices(schema):
        entry["options"] = [{"label": choice or UNSET, "value": choice} for choice in choices]
    if is_number:
        entry |= {word: schema[bound] for word, bound in (("min", "minimum"), ("max", "maximum")) if bound in schema}
    return entry


def _choices(schema: dict[str, Any]) -> list[str]:
    """What a field may be set to; the empty choice leaves it unset. Nothing for free text."""
    if "enum" in schema:
        return list(schema["enum"])
    for kind in schema.get("anyOf", ()):
        if "enum" in kind:
            return ["", *kind["enum"]]
        if kind.get("type") == "boolean":
            return ["", "true", "false"]
    return []


def _title(name: str) -> str:
    text = " ".join(WORDS.get(word, word) for word in name.split("_"))
    return text[0].upper() + text[1:]


def _default(name: str, default: object) -> object:
    """What stands in the form; an empty field is an unset variable."""
    if name == "flux_model":
        return DEFAULT_MODEL
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return default if isinstance(default, int | float) else str(default)
