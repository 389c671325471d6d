"""Where a LoRA comes from: the forms that `loras[].path` takes, parsed without opening anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from flux_engine.errors import InvalidInput
from flux_engine.inputs.inline import inline_bytes, is_data_uri
from flux_engine.net.pages import file_address

SUFFIX: Final = ".safetensors"
_NAME: Final = r"(?!\.)[^\0-\x1f\x7f/\\:*?\"<>|]{1,128}"
VOLUME_PATH: Final = re.compile(rf"{_NAME}(?:/{_NAME}){{0,7}}")
HUB: Final = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,127}))?"
    rf"(?::(?P<file>{_NAME}(?:/{_NAME}){{0,7}}))?"
)
HUB_ADDRESS: Final = re.compile(  # as huggingface_hub's file system writes it, and others in short
    r"(?:hf|huggingface):(?://)?(?P<repo>[^/@:]+/[^/@:]+)(?P<revision>@[^/:]+)?(?:[/:](?P<file>.+))?", re.IGNORECASE
)
HUB_PAGE: Final = re.compile(r"/([^/]+/[^/]+?)(?:/tree/(refs/[^/]+/[^/]+|[^/]+)(?:/(.*?))?)?/?")
HUB_HOSTS: Final = ("huggingface.co", "www.huggingface.co", "hf.co")
NO_REPOSITORIES: Final = ("datasets", "spaces", "models", "api", "docs", "blog", "collections", "papers", "settings")
CIVITAI_HOSTS: Final = ("civitai.com", "www.civitai.com", "civitai.red", "civitai.green")
CIVITAI_DOWNLOAD: Final = re.compile(r"/api/download/models/(\d+)/?")
CIVITAI_VERSION: Final = re.compile(r"(?:/api/v1)?/model-versions/(\d+)/?")
AIR: Final = re.compile(
    r"(?:urn:)?air:[a-z0-9]+:(?:lora|lycoris|locon|dora):civitai:(\d+@\d+)(?::[^:]*)?(?:\.[a-z]+)?", re.IGNORECASE
)
MIN_INLINE_CHARACTERS: Final = 256  # shorter text is a name: a LoRA's header alone is longer
MISTAKES: Final = (  # what is often sent, and what to send in its place
    (r'".*"|`.*`', "leave the quotation marks out"),
    (r"<.*>", "it is a tag; send the name in it as `path` and its number as `scale`"),
    (
        r"(?:urn:)?air:.*",
        "its AIR must name a version of a LoRA on Civitai, `urn:air:flux1:lora:civitai:618692@691639`",
    ),
    (r"[^:]+\\[^:]*", "write `/` and not `\\` between a folder and a file"),
    (r"[^/:]+:-?\d*\.?\d+", "send its weight as `scale`"),
)
FORMS: Final = (
    "a file's name on the volume, `owner/repo[@revision][:file.safetensors]`, `civitai:VERSION_ID`, "
    "an https URL of a .safetensors file, or its bytes in base64"
)


@dataclass(frozen=True, slots=True)
class VolumeLora:
    """A file in the `loras` folder of the volume, or in a folder below it."""

    file_name: str


@dataclass(frozen=True, slots=True)
class HubLora:
    """A file of a Hugging Face repository; without `file` its `folder`, or all of it, must hold one LoRA only."""

    repo: str
    revision: str | None
    file: str | None
    folder: str = ""

    @property
    def on_volume(self) -> VolumeLora | None:
        """The file on the volume that the same words name: `owner/repo` may be a folder and a file's name."""
        return VolumeLora(self.repo + SUFFIX) if self.revision is None and self.file is None else None


@dataclass(frozen=True, slots=True)
class CivitaiLora:
    """A version of a model on Civitai, whose number is not that of the model's page.

    `query` chooses among the version's files, as the site's own links write it.
    """

    version_id: int
    query: str = ""


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
    path = _in_short(path)
    if path.lower().startswith("civitai:"):
        return _civitai(path[len("civitai:") :])
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        return _url(path)
    if len(path) >= MIN_INLINE_CHARACTERS:
        return _inline(path, max_inline_bytes)
    return _named(path)


def _in_short(path: str) -> str:
    """`path` in a form of the contract, where it is another spelling of one."""
    if (air := AIR.fullmatch(path)) is not None:
        return f"civitai:{air[1]}"
    if (hub := HUB_ADDRESS.fullmatch(path)) is not None:
        return hub["repo"] + unquote(hub["revision"] or "") + (f":{hub['file']}" if hub["file"] else "")
    if path[:32].partition("/")[0].lower() in (*HUB_HOSTS, *CIVITAI_HOSTS):
        return f"https://{path}"
    return path


def _named(path: str) -> VolumeLora | HubLora:
    if path.startswith(("/", "~", "./")) or re.match(r"[A-Za-z]:[\\/]|\\\\", path):
        raise _invalid("it is a path of a machine; name a file by its place in the folder `loras` of the volume")
    is_plain = not any(part.startswith(".") or part != part.strip() for part in path.split("/")) and "//" not in path
    match = HUB.fullmatch(path) if is_plain and ".." not in path else None
    if match is not None and not match["repo"].lower().endswith(SUFFIX) and _is_lora_file(match["file"] or SUFFIX):
        return HubLora(repo=match["repo"], revision=match["revision"], file=match["file"])
    if is_plain and VOLUME_PATH.fullmatch(path):
        return VolumeLora(path if _is_lora_file(path) else path + SUFFIX)
    advice = next((f"{advice}; " for form, advice in MISTAKES if re.fullmatch(form, path, re.IGNORECASE)), "")
    raise _invalid(f"{advice}it must be {FORMS}")


def _is_lora_file(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


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
    if host in HUB_HOSTS and (repository := _hub_page(parts.path)) is not None:
        return repository
    return UrlLora(file_address(path))


def _hub_page(path: str) -> HubLora | None:
    """The repository, or its folder, whose page is at `path`; None for the addresses of files, which are URLs."""
    match = HUB_PAGE.fullmatch(path)
    if match is None or match[1].partition("/")[0] in NO_REPOSITORIES:
        return None
    source = HUB.fullmatch(unquote(match[1] if match[2] is None else f"{match[1]}@{match[2]}"))
    return HubLora(source["repo"], source["revision"], None, unquote(match[3] or "")) if source is not None else None


def _civitai(identity: str) -> CivitaiLora:
    numbers, _, query = identity.partition("?")
    version = numbers.rpartition("@")[2].strip()
    if not version.isascii() or not version.isdigit() or len(version) > 12:
        raise _invalid("`civitai:` takes the number of a version, as in `civitai:691639`")
    return CivitaiLora(int(version), query.strip())


def _civitai_page(path: str, query: str) -> CivitaiLora:
    if (download := CIVITAI_DOWNLOAD.fullmatch(path)) is not None:
        return _civitai(f"{download[1]}?{query}")
    if (versions := parse_qs(query).get("modelVersionId")) is not None:
        return _civitai(versions[0])
    if (version := CIVITAI_VERSION.fullmatch(path)) is not None:
        return _civitai(version[1])
    if (page := re.match(r"/models/(\d+)", path)) is not None:
        raise _invalid(
            f"{page[1]} is the number of a Civitai page, which holds several versions; open the version wanted and "
            "send its URL with `modelVersionId`, or `civitai:VERSION_ID`"
        )
    raise _invalid("its Civitai URL names no version; send the one with `modelVersionId`")


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(f"`path` of a LoRA cannot be read: {problem}", field="loras")
