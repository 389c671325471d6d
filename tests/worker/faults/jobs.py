"""The jobs that a fault is put into, each the only one of its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

QUICK: Final = {"prompt": "a red sun", "num_inference_steps": 1, "width": 64, "height": 64, "seed": 7}
LINKS: Final = {"response_format": "url"}
INLINE: Final = {"response_format": "b64_json"}
FILM: Final = {"num_frames": 2, "fps": 2, "type": "video"}
PICTURE_PATH: Final = "/a.png"
LORA_PATH: Final = "/a.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job, and what there is before it.

    `is_there`: another job like it was finished before. `has_twin`: another one like it is sent while it runs, and
    `is_twin`: the fault is the waiting one's. `HOST` in a field stands for the address of the site with the files.
    """

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    is_there: bool = False
    has_twin: bool = False
    is_twin: bool = False
    has_own_bucket: bool = False
    is_openai: bool = False

    @property
    def is_inline(self) -> bool:
        return self.fields.get("response_format") == "b64_json" or self.is_openai

    @property
    def is_cached(self) -> bool:
        return bool(self.fields.get("cache", True))

    def job(self, identity: str, host: str) -> dict[str, Any]:
        if self.is_openai:
            asked = {
                "prompt": "a red sun", "stream": True, "partial_images": 1, "size": "64x64", "seed": 7, "steps": 2,
            }  # fmt: skip
            return {"id": identity, "input": {"openai_route": "/v1/images/generations", "openai_input": asked}}
        job = {"id": identity, "input": {**QUICK, **_at(host, self.fields)}}
        if self.has_own_bucket:
            job["s3Config"] = {"endpointUrl": "https://a.example", "accessId": "a", "accessSecret": "b"}
        return job


def _at(host: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("HOST", host)
    if isinstance(value, dict):
        return {name: _at(host, each) for name, each in value.items()}
    return [_at(host, each) for each in value] if isinstance(value, list) else value


CASES: Final = (
    Case(name="inline", fields={**INLINE}),
    Case(name="bucket", fields={**LINKS}),
    Case(name="hit", fields={**LINKS}, is_there=True),
    Case(name="inline hit", fields={**INLINE}, is_there=True),
    Case(name="owner", fields={**LINKS}, has_twin=True),
    Case(name="twin", fields={**LINKS}, has_twin=True, is_twin=True),
    Case(name="from a picture", fields={**LINKS, "image": f"HOST{PICTURE_PATH}", "strength": 0.9}),
    Case(name="loras", fields={**LINKS, "loras": ["mosaic", {"path": f"HOST{LORA_PATH}", "scale": 0.5}]}),
    Case(name="upscale", fields={**LINKS, "upscale": 2}),
    Case(name="video", fields={**INLINE, **FILM}),
    Case(name="video to the bucket", fields={**LINKS, **FILM}),
    Case(name="without the cache", fields={**LINKS, "cache": False}),
    Case(name="inline without the cache", fields={**INLINE, "cache": False}),
    Case(name="openai", is_openai=True),
    Case(name="own bucket", fields={**LINKS}, has_own_bucket=True),
)
