"""The header of a safetensors file: hostile numbers and texts, and notes of any length."""

from __future__ import annotations

import json
import struct
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from flux_engine.errors import LoraInvalid
from flux_engine.inputs.lora_header import check_header
from flux_engine.inputs.safetensors_header import MAX_HEADER_BYTES, MAX_TENSORS, shown

MAX_BYTES = 300_000_000


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


ONE = {"a": entry("F32", [2], 0, 8)}
BAD = {
    "empty": (b"", "it is empty"),
    "one byte": (b"\0", "too short"),
    "header past the end": (raw({}, length=2**40), "too short"),
    "header longer than the file": (raw({}, length=3), "too short"),
    "no JSON": (raw(b"{]"), "not valid JSON"),
    "a list": (raw([1, 2]), "not valid JSON"),
    "deep": (raw(b"[" * 100_000), "not valid JSON"),
    "deep within an entry": (raw(b'{"a":' * 100_000), "not valid JSON"),
    "text that does not end": (raw(b'{"a'), "not valid JSON"),
    "two objects": (raw(b"{}{}"), "not valid JSON"),
    "text behind": (raw(json.dumps(ONE).encode() + b" x", bytes(8)), "not valid JSON"),
    "a name twice": (raw(b'{"a": {}, "a": {}}'), "not valid JSON"),
    "bytes that are no UTF-8": (raw(b'{"\xff": {}}'), "not valid JSON"),
    "no tensor": (raw({"__metadata__": {}}), "the file holds no tensor"),
    "blanks alone": (raw(b"{" + b" " * 1_000_001 + b"}"), "the file holds no tensor"),
    "too many tensors": (
        raw({f"t{i}": entry("U8", [1], i, i + 1) for i in range(MAX_TENSORS + 1)}, bytes(MAX_TENSORS + 1)),
        "too many tensors",
    ),
    "long names": (raw({"a" * 513: entry("U8", [1], 0, 1)}, b"0"), "describes `a+...` wrongly"),
    "an entry that is text": (raw({"a": "x"}), "not valid JSON"),
    "an entry without a shape": (raw({"a": {"dtype": "F32"}}), "describes `a` wrongly"),
    "an unknown type": (raw({"a": entry("F31", [1], 0, 4)}, bytes(4)), "the type F31"),
    "a type that is a number": (raw({"a": {**ONE["a"], "dtype": 5}}, bytes(8)), "no type"),
    "overlap": (raw({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)), "overlap"),
    "a gap": (raw({"a": entry("F32", [1], 4, 8)}, bytes(8)), "gaps"),
    "other bytes than the shape": (raw({"a": entry("F32", [3], 0, 8)}, bytes(8)), "other bytes"),
    "half a byte": (raw({"a": entry("F4", [3], 0, 1)}, bytes(1)), "other bytes"),
    "negative sizes": (raw({"a": entry("F32", [-1, -2], 0, 8)}, bytes(8)), "impossible shape"),
    "sizes that are true": (raw({"a": {**ONE["a"], "shape": [True]}}, bytes(8)), "impossible shape"),
    "sizes over what a disk holds": (raw({"a": entry("U8", [2**50], 0, 2**50)}), "impossible shape"),
    "nine dimensions": (raw({"a": entry("U8", [1] * 9, 0, 1)}, bytes(1)), "impossible shape"),
    "truncated": (raw(ONE, bytes(7)), "truncated"),
    "longer": (raw(ONE, bytes(9)), "longer than its header says"),
    "notes that are a list": (raw({"__metadata__": [], **ONE}, bytes(8)), "map names to text"),
    "notes that are numbers": (raw({"__metadata__": {"a": 1}, **ONE}, bytes(8)), "map names to text"),
    "nested notes": (raw({"__metadata__": {"a": {}}, **ONE}, bytes(8)), "map names to text"),
    "too many notes": (raw({"__metadata__": {str(i): "" for i in range(20_001)}, **ONE}, bytes(8)), "20000 notes"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_a_header_that_cannot_be_trusted_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(LoraInvalid, match=words):
        check_header(tmp_path / "x", max_bytes=MAX_BYTES)


def test_a_file_over_its_bound_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(raw(ONE, bytes(8)))
    with pytest.raises(LoraInvalid, match="takes up to 20"):
        check_header(tmp_path / "x", max_bytes=20)
    with (tmp_path / "large").open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(LoraInvalid, match="up to 100000000 are read"):
        check_header(tmp_path / "large", max_bytes=MAX_BYTES)


@pytest.mark.parametrize("place", ["first", "last", "between"])
def test_notes_are_read_wherever_they_stand(place: str, tmp_path: Path) -> None:
    notes: dict[str, object] = {
        "__metadata__": {"format": "pt", 'quoted " \\ {}': '[{"a": "b"}]\n', "ümlaut": "\u4e2d"}
    }
    a: dict[str, object] = {"a": entry("F16", [2, 2], 0, 8)}
    b: dict[str, object] = {"b": entry("F32", [], 8, 12)}
    parts = {"first": (notes, a, b), "last": (a, b, notes), "between": (a, notes, b)}[place]
    members = {name: value for part in parts for name, value in part.items()}
    (tmp_path / "x").write_bytes(raw(json.dumps(members, indent=1).encode() + b"   ", bytes(12)))
    header = check_header(tmp_path / "x", max_bytes=1000)
    assert header.metadata == notes["__metadata__"]
    assert list(header.tensors) == ["a", "b"]
    assert (header.tensors["a"].shape, header.tensors["b"].shape) == ((2, 2), ())


def test_a_name_that_looks_like_the_notes_is_a_tensor(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(raw({'"__metadata__": {}': entry("U8", [1], 0, 1)}, bytes(1)))
    assert list(check_header(tmp_path / "x", max_bytes=1000).tensors) == ['"__metadata__": {}']


def test_notes_of_many_megabytes_cost_little_memory_and_let_other_threads_run(tmp_path: Path) -> None:
    """As kohya's trainer writes for a large set of tags: JSON within JSON, each quote escaped."""
    tags = json.dumps({f'tag "{number}"': number for number in range(700_000)})
    content = raw({"__metadata__": {"ss_tag_frequency": tags, "lora_alpha": "2"}, **ONE}, bytes(8))
    assert len(content) > 20_000_000
    (tmp_path / "x").write_bytes(content)
    pauses, is_done = [0.0], threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not is_done.wait(0.001):
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    watching = threading.Thread(target=watch)
    watching.start()
    tracemalloc.start()
    header = check_header(tmp_path / "x", max_bytes=MAX_BYTES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    is_done.set()
    watching.join()
    assert header.metadata == {"lora_alpha": "2"}  # the long note is walked over
    assert peak < 2.2 * len(content)
    assert len(pauses) > 10  # the watch ran meanwhile


def test_names_are_shown_short_and_printable() -> None:
    assert shown("a\n\x1b[31mb") == "a??[31mb"
    assert shown("a" * 200) == "a" * 97 + "..."
