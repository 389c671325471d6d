"""Where a LoRA comes from: the forms that `loras[].path` takes, parsed without opening anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from flux_engine.errors import InvalidInput
from flux_engine.inputs.inline import inline_bytes, is_data_uri

VOLUME_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
HUB: Final = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,127}))?"
    r"(?::(?P<file>[A-Za-z0-9_][A-Za-z0-9 ._()+/-]{0,199}\.safetensors))?"
)
CIVITAI_HOSTS: Final = ("civitai.com", "www.civitai.com", "civitai.red", "civitai.green")
MIN_INLINE_CHARACTERS: Final = 256  # what is shorter is a name; the header of a LoRA alone is longer
SUFFIX: Final = ".safetensors"
FORMS: Final = (
    "a file name on the volume, `owner/repo[@revision][:file.safetensors]`, `civitai:VERSION_ID`, "
    "an https URL of a .safetensors file, or its bytes in base64"
)


@dataclass(frozen=True, slots=True)
class VolumeLora:
    """A file in the `loras` folder of the volume."""

    file_name: str


@dataclass(frozen=True, slots=True)
class HubLora:
    """A file of a Hugging Face repository; without `file` the repository must hold one LoRA only."""

    repo: str
    revision: str | None
    file: str | None


@dataclass(frozen=True, slots=True)
class CivitaiLora:
    """A version of a model on Civitai. Its number is not that of the model's page."""

    version_id: int


@dataclass(frozen=True, slots=True)
class UrlLora:
    """A file behind an https URL."""

    url: str


@dataclass(frozen=True, slots=True)
class InlineLora:
    """A file that came with the job."""

    content: bytes


LoraSource = VolumeLora | HubLora | CivitaiLora | UrlLora | InlineLora


def parse_source(path: str, *, max_inline_bytes: int) -> LoraSource:
    """What `path` of a job means. Raises InvalidInput."""
    if is_data_uri(path):
        return _inline(path, max_inline_bytes)
    if path.lower().startswith("civitai:"):
        return _civitai(path[len("civitai:") :])
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        return _url(path)
    if len(path) >= MIN_INLINE_CHARACTERS:
        return _inline(path, max_inline_bytes)
    if VOLUME_NAME.fullmatch(path):
        return VolumeLora(path if path.endswith(SUFFIX) else path + SUFFIX)
    if (match := HUB.fullmatch(path)) is not None and ".." not in path and "//" not in path:
        return HubLora(repo=match["repo"], revision=match["revision"], file=match["file"])
    raise _invalid(f"it must be {FORMS}")


def _inline(text: str, max_bytes: int) -> InlineLora:
    try:
        content = inline_bytes(text, max_bytes=max_bytes)
    except ValueError as error:
        raise _invalid(f"{error}; it must be {FORMS}") from None
    if content is None:
        raise _invalid(f"it holds more than {max_bytes} bytes; send a URL")
    return InlineLora(content)


def _url(path: str) -> LoraSource:
    if not path.lower().startswith("https://"):
        raise _invalid("its URL must begin with https://")
    try:
        parts = urlsplit(path)
        host = (parts.hostname or "").lower()
    except ValueError:
        raise _invalid("its URL is not a valid one") from None
    if host in CIVITAI_HOSTS:
        return _civitai_page(parts.path, parts.query)
    return UrlLora(path)


def _civitai(identity: str) -> CivitaiLora:
    version = identity.rpartition("@")[2].strip()
    if not version.isascii() or not version.isdigit() or len(version) > 12:
        raise _invalid("`civitai:` takes the number of a version, as in `civitai:691639`")
    return CivitaiLora(int(version))


def _civitai_page(path: str, query: str) -> CivitaiLora:
    if (versions := parse_qs(query).get("modelVersionId")) is not None:
        return _civitai(versions[0])
    if (download := re.fullmatch(r"/api/download/models/(\d+)/?", path)) is not None:
        return _civitai(download[1])
    if (page := re.match(r"/models/(\d+)", path)) is not None:
        raise _invalid(
            f"{page[1]} is the number of a Civitai page, which holds several versions; open the version wanted and "
            "send its URL with `modelVersionId`, or `civitai:VERSION_ID`"
        )
    raise _invalid("its Civitai URL names no version; send the one with `modelVersionId`")


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(f"`path` of a LoRA cannot be read: {problem}", field="loras")
