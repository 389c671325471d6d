"""A LoRA out of what was downloaded: the file itself, or the only one in a tar, as Replicate's trainers send it.

An archive is hostile: its headers are walked one by one, nothing is extracted by its name, names serve for messages
alone, and what a gzip unpacks to is counted while it is written. Zip archives are not opened.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from flux_engine.errors import InputFetchFailed, LoraInvalid
from flux_engine.inputs.lora_header import check_header, read_header
from flux_engine.inputs.lora_kinds import other_kind
from flux_engine.inputs.lora_source import SUFFIX
from flux_engine.inputs.safetensors_header import Header, header_with_note, shown
from flux_engine.units import MIB

BLOCK_BYTES: Final = 512
MAX_ENTRIES: Final = 1000
MAX_LONG_NAME_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 4 * MIB
GZIP: Final = b"\x1f\x8b"
TAR_MAGIC: Final = slice(257, 262)
FILE_TYPES: Final = (b"0", b"\0", b"7")
ALPHA: Final = re.compile(r"(?:^|\.)(?:lora_|network_)?alpha$|^lora_adapter_metadata$|^adapter_config$")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A downloaded file, and a name beside it for what is made of it; both are the caller's to remove."""

    file: Path
    spare: Path
    max_bytes: int

    def swapped(self) -> Workspace:
        return Workspace(self.spare, self.file, self.max_bytes)


def lora_in(downloaded: Workspace) -> tuple[Workspace, Header]:
    """With `file` being a LoRA, the downloaded file or the one in it, and its header.

    Raises LoraInvalid where it is none, or an archive that holds none or several.
    """
    workspace = downloaded
    if _start(workspace.file).startswith(GZIP):
        _gunzip(workspace)
        workspace = workspace.swapped()
    if _start(workspace.file)[TAR_MAGIC] == b"ustar":
        _extract_only_lora(workspace)
        workspace = workspace.swapped()
    return workspace, check_lora(workspace.file, max_bytes=workspace.max_bytes)


def check_lora(path: Path, *, max_bytes: int) -> Header:
    """The header of a LoRA. Raises LoraInvalid where the file is none, by its bytes or by its tensors' names."""
    try:
        header = check_header(path, max_bytes=max_bytes)
    except LoraInvalid as error:
        raise LoraInvalid(error.message, field="loras") from error
    kind = other_kind(header.tensors)
    if kind is not None and kind.verdict == "no LoRA":
        raise kind.error()
    return header


def lacks_alpha(header: Header) -> bool:
    """Whether neither tensors nor notes say how strongly the LoRA acts."""
    names = [*header.tensors, *(name.removeprefix("transformer.") for name in header.metadata)]
    return not any(ALPHA.search(name) for name in names)


def with_adapter_config(workspace: Workspace, header: Header, config: bytes) -> Workspace:
    """With PEFT's `adapter_config.json` as a note in the LoRA `file`, whose content says then how strongly it acts.

    Raises LoraInvalid where the note makes it larger than a LoRA may be.
    """
    try:
        text = config.decode()
        if not isinstance(json.loads(text), dict):
            return workspace
    except (ValueError, RecursionError):
        return workspace
    with workspace.file.open("rb") as source, workspace.spare.open("wb") as target:
        target.write(header_with_note(source, "adapter_config", text))
        source.seek(header.data_start)
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)
    check_lora(workspace.spare, max_bytes=workspace.max_bytes)
    return workspace.swapped()


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BLOCK_BYTES)


def _gunzip(workspace: Workspace) -> None:
    count = 0
    try:
        with gzip.open(workspace.file) as source, workspace.spare.open("wb") as target:
            while chunk := source.read(CHUNK_BYTES):
                count += len(chunk)
                if count > workspace.max_bytes:
                    raise InputFetchFailed(
                        f"the archive unpacks to more than {workspace.max_bytes} bytes; send the LoRA itself",
                        field="loras",
                    )
                target.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LoraInvalid("the LoRA is a broken gzip archive; download or pack it again", field="loras") from error


# ------------------------------------------------------------------------------------------------------------- tar


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    start: int
    size: int


def _extract_only_lora(workspace: Workspace) -> None:
    with workspace.file.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        loras = [entry for entry in _entries(file, size) if _is_lora(file, entry)]
        if len(loras) != 1:
            names = ", ".join(f"`{shown(entry.name)}`" for entry in loras[:5])
            holds = f"{len(loras)} LoRAs ({names})" if loras else f"no LoRA with a name that ends in {SUFFIX}"
            raise LoraInvalid(f"the tar archive holds {holds}; unpack it and send the file wanted", field="loras")
        file.seek(loras[0].start)
        rest = loras[0].size
        with workspace.spare.open("wb") as target:
            while rest and (chunk := file.read(min(rest, CHUNK_BYTES))):
                target.write(chunk)
                rest -= len(chunk)


def _is_lora(file: BinaryIO, entry: _Entry) -> bool:
    if not entry.name.lower().endswith(SUFFIX) or PurePosixPath(entry.name).name.startswith("."):
        return False
    file.seek(entry.start)
    try:
        kind = other_kind(read_header(file, entry.size).tensors)
    except LoraInvalid:
        return False
    return kind is None or kind.verdict != "no LoRA"


def _entries(file: BinaryIO, size: int) -> list[_Entry]:
    """The files in a tar, by its headers alone. Raises LoraInvalid where they are broken or too many."""
    found: list[_Entry] = []
    position, long_name = 0, ""
    for _ in range(MAX_ENTRIES):
        file.seek(position)
        header = file.read(BLOCK_BYTES)
        if not header.strip(b"\0"):
            return found
        length = _number(header[124:136])
        start = position + BLOCK_BYTES
        if len(header) < BLOCK_BYTES or length is None or not _is_whole(header) or start + length > size:
            raise _broken()
        kind = header[156:157]
        if kind in (b"L", b"x") and length <= MAX_LONG_NAME_BYTES:
            long_name = _long_name(kind, file.read(length)) or long_name
        elif kind in FILE_TYPES:
            prefix, name = _text(header[345:500]), _text(header[:100])
            found.append(_Entry(long_name or (f"{prefix}/{name}" if prefix else name), start, length))
            long_name = ""
        position = start + -(-length // BLOCK_BYTES) * BLOCK_BYTES
    raise LoraInvalid(f"the tar archive holds more than {MAX_ENTRIES} files; send the LoRA itself", field="loras")


def _broken() -> LoraInvalid:
    return LoraInvalid("the LoRA is a broken tar archive; download or pack it again", field="loras")


def _number(field: bytes) -> int | None:
    """A size: octal digits, or binary with the highest bit set."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]{1,12}", digits) else None


def _is_whole(header: bytes) -> bool:
    """Whether a header's checksum is right: the sum of its bytes, with blanks in place of the sum."""
    return _number(header[148:156]) == sum(header) - sum(header[148:156]) + 8 * 32


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _long_name(kind: bytes, data: bytes) -> str:
    """The name of the next file, in GNU's form or in a `path` record."""
    if kind == b"L":
        return _text(data)
    match = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", data)
    return match[1].decode("utf-8", "replace") if match else ""
