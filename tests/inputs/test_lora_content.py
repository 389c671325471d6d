"""What stands in place of a LoRA is told by its bytes."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile

import pytest

from flux_engine.inputs.lora_content import START_BYTES, other_content

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
ANSWERS = {  # what it says, what it is, whether a token may help, whether waiting may
    "nothing": ("", "empty", False, True),
    "a short login page": ("<!DOCTYPE html><html>log in</html>", "a login page", True, False),
    "a long login page": (PAGE.format("Sign in - Civitai", MENU), "a login page", True, False),
    "a form for a password": (PAGE.format("Hello", MENU + '<input type="password">'), "a login page", True, False),
    "a page with a menu": (PAGE.format("FLUX style", MENU), "a web page", False, False),
    "Cloudflare's challenge": (PAGE.format("Just a moment...", "<script>cf-chl</script>"), "asks whether", False, True),
    "another challenge": (PAGE.format("Attention Required!", MENU), "asks whether", False, True),
    "a page that is busy": (PAGE.format("503 Service Unavailable", ""), "the server is busy", False, True),
    "JSON that asks for a token": ('{"error":"Unauthorized","message":"log in"}', "an error", True, False),
    "JSON of another error": ('{"detail": "not found"}', "an error", True, False),
    "JSON that asks to wait": ('{"error": "Rate limit exceeded"}', "the server is busy", False, True),
    "a bucket's error": ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an error", True, False),
    "a bucket's other error": ("<Error><Code>NoSuchKey</Code></Error>", "an error", True, False),
    "a line of text": ("Invalid API key", "an error", True, False),
    "other text": ("hello", "text", False, False),
    "blanks before a page": ("\n\n  " + PAGE.format("x", ""), "a web page", False, False),
    "a byte order mark": ("\ufeff" + PAGE.format("x", ""), "a web page", False, False),
}


@pytest.mark.parametrize(("start", "what"), FILES.values(), ids=FILES)
def test_other_files_are_known_by_their_first_bytes(start: bytes, what: str) -> None:
    found = other_content(start)
    assert found is not None
    assert found.what.startswith(what)
    assert not found.is_answer
    assert found.advice


@pytest.mark.parametrize(("text", "what", "asks_for_login", "may_pass"), ANSWERS.values(), ids=ANSWERS)
def test_answers_of_servers_are_told_from_files(text: str, what: str, asks_for_login: bool, may_pass: bool) -> None:
    found = other_content(text.encode())
    assert found is not None
    assert what in found.what
    assert (found.is_answer, found.asks_for_login, found.may_pass) == (True, asks_for_login, may_pass)


def test_a_page_in_utf_16_and_a_character_cut_in_two() -> None:
    found = other_content(PAGE.format("x", "").encode("utf-16"))
    assert found is not None
    assert found.what == "a web page"
    found = other_content(("<html>" + "\u4e2d" * START_BYTES).encode()[: START_BYTES - 1])
    assert found is not None
    assert found.what == "a web page"


@pytest.mark.parametrize("start", [b"\x10\0\0\0\0\0\0\0{}", bytes(range(256)), b"\xff" * 100, b"\0" * 600])
def test_of_other_bytes_nothing_is_known(start: bytes) -> None:
    assert other_content(start) is None
