"""The types of jobs for the clients, in Python and TypeScript, made from the schemas of jobs.

A client's types hold for every model: each field with the widest form that any model takes, by its canonical name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from flux_engine.job.base import ParseContext
from flux_engine.job.schema.jobs import Kind, Offer, job_schema
from flux_engine.job.size import SIZE_ALIASES
from flux_engine.job.written.aliases import WITHOUT_EFFECT
from flux_engine.job.written.loras import ITEM_ALIASES
from flux_engine.job.written.pictures import NUMBERED
from flux_engine.models.catalog import CATALOG

ROOT: Final = Path(__file__).parents[1] / "clients"
PYTHON: Final = ROOT / "python" / "flux_client" / "job.py"
TYPESCRIPT: Final = ROOT / "typescript" / "src" / "job.ts"
KINDS: Final[tuple[Kind, ...]] = ("image", "video")
NAMED: Final = {
    "loras": "Lora",
    "keyframes": "Keyframe",
    "motion": "Motion",
    "control": "Control",
    "boxes": "Box",
    "expand": "Expand",
}
NEEDED: Final[Mapping[Kind, str]] = {"image": "prompt", "video": "type"}  # keyframes may stand for a video's prompt
MADE: Final = "Made from the worker's schemas of jobs by `python -m builder.docs`; do not edit."
PLAIN: Final[Mapping[str, tuple[str, str]]] = {  # Python's and TypeScript's
    "string": ("str", "string"),
    "integer": ("int", "number"),
    "number": ("float", "number"),
    "boolean": ("bool", "boolean"),
    "object": ("dict[str, Any]", "Record<string, unknown>"),
}

Schema = Mapping[str, Any]


class Types:
    """The types of one language; objects within jobs become types of their own, by `NAMED`."""

    def __init__(self, *, is_python: bool) -> None:
        self.objects: dict[str, dict[str, tuple[str, bool, str]]] = {}  # by name: field -> type, required, description
        self._is_python = is_python

    def of(self, schema: Schema, name: str) -> str:
        """The type of what `schema` takes; null is left out, since an absent field says the same."""
        if "enum" in schema:
            values = [value for value in schema["enum"] if value is not None]
            return self._literal(values)
        if "anyOf" in schema and "properties" not in schema:
            forms = [self.of(form, name) for form in schema["anyOf"] if form != {"type": "null"}]
            return " | ".join(dict.fromkeys(forms))
        kinds = schema.get("type", "object")
        kind = next(k for k in (kinds if isinstance(kinds, list) else [kinds]) if k != "null")
        if kind == "array":
            return self._array(schema, name)
        if kind == "object" and "properties" in schema:
            return self._object(schema, NAMED[name])
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            value = self.of(schema["additionalProperties"], name)
            return f"dict[str, {value}]" if self._is_python else f"Record<string, {value}>"
        return PLAIN[kind][0 if self._is_python else 1]

    def _literal(self, values: list[str]) -> str:
        texts = [json.dumps(value) for value in values]
        return f"Literal[{', '.join(texts)}]" if self._is_python else " | ".join(texts)

    def _array(self, schema: Schema, name: str) -> str:
        if "prefixItems" in schema:
            parts = ", ".join(self.of(part, name) for part in schema["prefixItems"])
            return f"tuple[{parts}]" if self._is_python else f"[{parts}]"
        item = self.of(schema["items"], name)
        return f"list[{item}]" if self._is_python else f"Array<{item}>"

    def _object(self, schema: Schema, type_name: str) -> str:
        required = {name for form in (schema, *schema.get("anyOf", [])) for name in form.get("required", [])}
        self.objects[type_name] = {
            name: (self.of(part, name), name in required, part.get("description", ""))
            for name, part in schema["properties"].items()
            if name not in ITEM_ALIASES
        }
        return type_name


def fields_of(kind: Kind) -> dict[str, Schema]:
    """The fields of a `kind` of job, as the first model takes them that has them."""
    context = ParseContext(
        default_model=lambda: CATALOG[0].limits,
        find_model=lambda name: None,
        served_models=(),
        default_response_format="url",
        can_return_urls=True,
    )
    fields: dict[str, Schema] = {}
    for spec in CATALOG:
        if kind == "image" or spec.makes_videos:
            offer = Offer(limits=spec.limits, names=(spec.id,), is_default=False, makes_videos=spec.makes_videos)
            properties = job_schema(kind, offer, context)["properties"]
            for name, part in properties.items():
                is_other_spelling = name in (*SIZE_ALIASES, *WITHOUT_EFFECT) or NUMBERED.fullmatch(name) is not None
                if "$ref" not in part and not is_other_spelling:
                    fields.setdefault(name, part)
    return fields


def python() -> str:
    types, bodies = Types(is_python=True), []
    for kind in KINDS:
        lines = [f"class {kind.title()}Job(TypedDict, total=False):", f'    """A job that makes {_what(kind)}."""', ""]
        for name, schema in fields_of(kind).items():
            hint = "str" if name == "model" else types.of(schema, name)
            hint = f"Required[{hint}]" if name == NEEDED[kind] else hint
            lines += [f"    {name}: {hint}", f'    """{_sentence(schema)}"""']
        bodies.append("\n".join(lines))
    named = [_python_object(name, fields) for name, fields in types.objects.items()]
    head = [f'"""The jobs that an endpoint takes. {MADE}"""', "", "from __future__ import annotations", ""]
    head += ["from typing import Any, Literal, Required, TypedDict", "", "", ""]
    return "\n".join(head) + "\n\n\n".join([*named, *bodies]) + "\n"


def _python_object(name: str, fields: Mapping[str, tuple[str, bool, str]]) -> str:
    lines = [f"class {name}(TypedDict, total=False):"]
    for field, (hint, is_required, description) in fields.items():
        lines.append(f"    {field}: {f'Required[{hint}]' if is_required else hint}")
        lines += [f'    """{description}"""'] if description else []
    return "\n".join(lines)


def typescript() -> str:
    types, bodies = Types(is_python=False), []
    for kind in KINDS:
        lines = [f"/** A job that makes {_what(kind)}. */", f"export interface {kind.title()}Job {{"]
        for name, schema in fields_of(kind).items():
            hint = "string" if name == "model" else types.of(schema, name)
            mark = "" if name == NEEDED[kind] else "?"
            lines += [f"  /** {_sentence(schema)} */", f"  {name}{mark}: {hint};"]
        bodies.append("\n".join([*lines, "}"]))
    named = list(_typescript_objects(types))
    return "\n\n".join([f"// The jobs that an endpoint takes. {MADE}", *named, *bodies]) + "\n"


def _typescript_objects(types: Types) -> Iterator[str]:
    for name, fields in types.objects.items():
        lines = [f"export interface {name} {{"]
        for field, (hint, is_required, description) in fields.items():
            lines += [f"  /** {description} */"] if description else []
            lines.append(f"  {field}{'' if is_required else '?'}: {hint};")
        yield "\n".join([*lines, "}"])


def _what(kind: Kind) -> str:
    return "one to four pictures" if kind == "image" else "a video"


def _sentence(schema: Schema) -> str:
    """Its description, without the pixels of one model."""
    return str(schema.get("description", "")).partition("; at most")[0]
