"""Documentation made from the code: `python -m builder.docs` writes it, `--check` exits with 1 where it is out of date.

Tables in the README and the pages of docs/, the page of GPUs, the form of the hub's entry, the clients' types, the
Postman collection and the gateway's OpenAPI document. A table stands between `<!-- begin:NAME -->` and
`<!-- end:NAME -->`; any page may hold any of them.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from builder import (
    client_types,
    gpus_table,
    hub_form,
    lora_tables,
    manifests,
    model_file_tables,
    performance_page,
    postman,
)
from flux_engine.errors import FluxError
from flux_engine.gateway.app import openapi_document
from flux_engine.gateway.settings import PARTS, GatewaySettings
from flux_engine.inputs.pictures import MAX_BYTES
from flux_engine.job.edits.expand import MAX_ADDED
from flux_engine.job.fields import ImageFields, SharedFields, describe
from flux_engine.job.limits import ImageUse
from flux_engine.job.size import SIZE_ALIASES
from flux_engine.job.video_fields import MAX_KEYFRAMES, VideoFields
from flux_engine.job.written.aliases import ALIASES
from flux_engine.media import colour, decode
from flux_engine.media import foreign as foreign_files
from flux_engine.models.catalog import CATALOG, ModelSpec
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.results import trial
from flux_engine.settings import LORA_FILE_HOSTS, Settings
from flux_engine.units import GIB

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
OPENAPI: Final = ROOT / "docs" / "openapi.json"
FORMS: Final = {  # of fields that are parsed apart
    "keyframes": f"a list of up to {MAX_KEYFRAMES}, or an object",
    "control": "an object of `type` (canny, depth, pose, tile), `image`, `strength`, `end`, or a list of two",
    "expand": f"an object of `left`, `right`, `top`, `bottom`, each an integer from 0 to {MAX_ADDED}",
    "motion": "an object; each value a number or a list of `[frame, value]`",
    "strength": "a number above 0 and up to 1; for a video also a list of `[frame, value]`",
}
WRITTEN: Final = {gpus_table.PAGE: gpus_table.page, performance_page.PAGE: performance_page.page}  # whole pages
BLOCK: Final = re.compile(r"(<!-- begin:(\w+) -->\n).*?(<!-- end:\2 -->)", re.DOTALL)


def main() -> int:
    made = {page: rendered(page.read_text(encoding="utf-8")) for page in PAGES if page not in WRITTEN}
    made |= {page: write() for page, write in WRITTEN.items()}
    made |= {hub_form.PAGE: hub_form.page(), manifests.PAGE: manifests.page()}
    made |= {client_types.PYTHON: client_types.python(), client_types.TYPESCRIPT: client_types.typescript()}
    made |= {postman.PAGE: postman.page(), OPENAPI: json.dumps(openapi_document(), indent=1) + "\n"}
    if "--check" in sys.argv:
        return int(any(page.read_text(encoding="utf-8") != text for page, text in made.items()))
    for page, text in made.items():
        page.write_text(text, encoding="utf-8")
    return 0


def rendered(text: str) -> str:
    """`text` with every block made anew. Raises KeyError for a block of an unknown name."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}{block[3]}", text)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def image_fields() -> str:
    return _fields(ImageFields.model_fields)


def video_fields() -> str:
    """Those that an image job does not have, or has in another form."""
    own = {name: field for name, field in VideoFields.model_fields.items() if name not in SharedFields.model_fields}
    return _fields(own)


def _fields(fields: Mapping[str, FieldInfo]) -> str:
    return _table(
        ("field", "takes", "default", "what", "also written"),
        (
            (f"`{name}`", FORMS.get(name) or describe(field), _default(field), field.description or "", _aliases(name))
            for name, field in fields.items()
        ),
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default == ():
        return "`[]`"
    return "-" if field.default is None else f"`{str(field.default).lower()}`"


def _aliases(name: str) -> str:
    others = [alias for alias, canonical in ALIASES.items() if canonical == name]
    if name in ("width", "height"):
        others += SIZE_ALIASES
    return ", ".join(f"`{other}`" for other in others)


def environment() -> str:
    return _settings(Settings.model_fields)


def gateway_environment() -> str:
    return _settings(GatewaySettings.model_fields)


def celery_environment() -> str:
    return _settings(CelerySettings.model_fields)


def _settings(fields: Mapping[str, FieldInfo]) -> str:
    rows = (
        (f"`{name.upper()}`", _variable(field), field.description or "")
        for name, field in fields.items()
        if name not in PARTS
    )
    return _table(("variable", "default", "meaning"), rows)


def _variable(field: FieldInfo) -> str:
    default = field.default
    if default is None:
        return _choices(field).strip()
    if default == LORA_FILE_HOSTS:
        default = ",".join(LORA_FILE_HOSTS)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`{_choices(field)}"


def _choices(field: FieldInfo) -> str:
    kinds = (field.annotation, *get_args(field.annotation))
    literal = next((kind for kind in kinds if get_origin(kind) is Literal), None)
    if literal is not None:
        return f" ({', '.join(get_args(literal))})"
    return " (true, false)" if bool in kinds else ""


def errors() -> str:
    return _table(
        ("`code`", "when", "`retryable`"),
        (
            (f"`{kind.code}`", (kind.__doc__ or "").partition("\n")[0], _retryable(kind))
            for kind in _with_codes(FluxError)
        ),
    )


def _with_codes(parent: type[FluxError]) -> Iterator[type[FluxError]]:
    """The errors under `parent` that declare a code, as errors.py orders them."""
    for kind in parent.__subclasses__():
        if "code" in vars(kind):
            yield kind
        yield from _with_codes(kind)


def _retryable(kind: type[FluxError]) -> str:
    if "retryable" in inspect.signature(kind).parameters:
        return "a 5xx or a time-out: yes"
    return "yes" if kind.retryable else "no"


def models() -> str:
    return _table(
        ("model", "steps", "guidance", "text tokens", "megapixels", "`image` is", "bf16 GiB", "licence"),
        (_row(spec) for spec in CATALOG),
    )


def _row(spec: ModelSpec) -> tuple[str, ...]:
    limits = spec.limits
    low, high = limits.num_inference_steps_bounds
    guidance = "none" if limits.guidance_scale is None else f"{limits.guidance_scale:g}"
    gated = ", gated" if spec.is_gated else ""
    gib = spec.parameters * 2 / GIB
    return (
        f"`{spec.id}`",
        f"{limits.num_inference_steps} ({low} to {high})",
        guidance,
        str(limits.max_sequence_length),
        f"{limits.max_pixels / 2**20:.2g}",
        IMAGE_USES[limits.image_use] + (", `mask` too" if limits.takes_mask else ""),
        f"{gib:.1f}" if gib > 0.05 else f"{gib:.3f}",
        spec.licence + gated,
    )


IMAGE_USES: Final[dict[ImageUse, str]] = {"start": "redrawn", "reference": "a reference", "canvas": "the canvas"}


def bucket_refusals() -> str:
    """The store's error codes that stop a worker at start, by the line that it prints."""
    lines = dict.fromkeys(trial.CAUSES.values())
    codes = {line: [f"`{code}`" for code, cause in trial.CAUSES.items() if cause == line] for line in lines}
    rows = [(", ".join(codes[line]), line.format(region="its region, where the store tells it")) for line in lines]
    rows.append(
        ("any other refusal, such as `AccessDenied`", "the permission that the key lacks: s3:PutObject, s3:GetObject")
    )
    return _table(("the store says", "the worker's line"), rows)


def pictures() -> str:
    """What is taken as a picture."""
    foreign = sorted(
        {what.removeprefix("is ").removeprefix("a ").removeprefix("an ") for _, what in foreign_files.FOREIGN}
    )
    return _table(
        ("of a picture", "is taken"),
        (
            ("format, by its bytes", ", ".join(decode.FORMATS)),
            ("size", f"up to {MAX_BYTES // 10**6} MB and {decode.MAX_PIXELS // 10**6} megapixels"),
            (
                "embedded colour profile",
                f"up to {colour.MAX_PROFILE_BYTES // 10**6} MB, converted to sRGB; else a warning",
            ),
            ("animation", "its first frame, with a warning"),
            ("refused by name, with what to send", ", ".join(("HEIC picture", "AVIF picture", *foreign))),
        ),
    )


TABLES: Final[dict[str, Callable[[], str]]] = {
    "bucket_refusals": bucket_refusals,
    "pictures": pictures,
    "image_fields": image_fields,
    "video_fields": video_fields,
    "environment": environment,
    "gateway_environment": gateway_environment,
    "celery_environment": celery_environment,
    "errors": errors,
    "models": models,
    "lora_words": lambda: _table(*lora_tables.words()),
    "lora_layers": lambda: _table(*lora_tables.layers()),
    "lora_refused": lambda: _table(*lora_tables.refused()),
    "lora_left_out": lambda: _table(*lora_tables.left_out()),
    "model_file_types": lambda: _table(*model_file_tables.types()),
    "model_file_refused": lambda: _table(*model_file_tables.refused()),
}


if __name__ == "__main__":
    sys.exit(main())
