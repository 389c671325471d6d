"""What stands in place of a LoRA is told by its bytes."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile

import pytest

from flux_engine.inputs.lora_content import other_content

PAGE = "<!DOCTYPE html><html><head><title>{}</title></head><body>{}</body></html>"
MENU = "<a href='/login'>Log in</a>" + "<p>text</p>" * 1000


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


FILES = {
    "a tar": (tar(), "a tar archive"),
    "a zip": (zipped("lora.safetensors"), "a zip archive"),
    "a PyTorch file": (zipped("archive/data.pkl"), "a PyTorch file"),
    "a pickle": (pickle.dumps([1, 2, 3], protocol=2), "a Python pickle"),
    "a newer pickle": (pickle.dumps([1, 2, 3], protocol=5), "a Python pickle"),
    "gzip": (gzip.compress(b"x"), "a gzip archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
    "GGUF": (b"GGUF\3\0\0\0", "a GGUF file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "PNG": (b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
    "WebP": (b"RIFF\0\0\0\0WEBPVP8 ", "a picture (WebP)"),
    "a PDF": (b"%PDF-1.7", "a PDF document"),
}
ANSWERS = {
    "nothing": ("", "empty"),
    "a login page": ("<!DOCTYPE html><html>log in</html>", "asks for a login"),
    "a challenge": (PAGE.format("Just a moment...", "<script>cf-chl</script>"), "checks for a human"),
    "a page": (PAGE.format("FLUX style", MENU), "a web page"),
    "JSON": ('{"error":"Unauthorized"}', "JSON text"),
    "a bucket's error": ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
    "a line of text": ("Invalid API key", "text"),
}


@pytest.mark.parametrize(("start", "what"), FILES.values(), ids=FILES)
def test_other_files_are_known_by_their_first_bytes(start: bytes, what: str) -> None:
    found = other_content(start)
    assert found is not None
    assert found.what.startswith(what)
    assert found.text.startswith(f"{found.what}; ")
    assert not found.is_answer


@pytest.mark.parametrize(("text", "what"), ANSWERS.values(), ids=ANSWERS)
def test_answers_of_servers_are_told_from_files(text: str, what: str) -> None:
    found = other_content(text.encode())
    assert found is not None
    assert what in found.what
    assert found.is_answer


@pytest.mark.parametrize("start", [b"\x10\0\0\0\0\0\0\0{}", bytes(range(256)), b"\xff" * 100, b"\0" * 600])
def test_of_other_bytes_nothing_is_known(start: bytes) -> None:
    assert other_content(start) is None
