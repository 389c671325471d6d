"""What arrives in place of a file is named for what it is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
import zipfile

import pytest

from flux_engine.net.content import content_of, named


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("lora.safetensors"))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("sun.png", "x")
    return buffer.getvalue()


NAVIGATION = "<p>words</p>" * 100


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>log in</html>", "asks for a login"),
        (b"<html><head><title>Sign in - Hub</title></head>" + NAVIGATION.encode(), "asks for a login"),
        (b'\xef\xbb\xbf <!-- x --> <HTML><form><input type="password">' + NAVIGATION.encode(), "asks for a login"),
        (b"<html><title>Just a moment...</title>", "checks for a human"),
        (b'<!doctype html><script src="/cdn-cgi/challenge-platform/x.js">', "checks for a human"),
        (f"<html><title>A red sun</title>{NAVIGATION}<a>login</a>".encode(), "the address of the file itself"),
        (b"<title>404</title>", "a web page"),
        (b'{"error": {"message": "Rate limit exceeded, try later"}}', 'says "Rate limit exceeded, try later"'),
        (b'{"detail": "see https://inner.example/x?token=abc and 10.0.0.1"}', 'says "see ... and ..."'),
        (b" [1, 2", "JSON text"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an error in XML (AccessDenied)"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "save it as PNG"),
        (zipped(), "a zip archive"),
        (tar(), "a tar archive"),
        (gzip.compress(b"x", mtime=0), "a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\0\0\0\x20ftypisom", "MP4"),
    ],
)
def test_what_it_is(head: bytes, said: str) -> None:
    found = named(head)
    assert found is not None
    assert said in found


ANSWERS = {  # what a host says, whether a token may help, whether waiting may
    "nothing": ("", False, True),
    "a login page": ("<html><title>Sign in</title></html>", True, False),
    "a page": ("<html><title>A red sun</title>" + NAVIGATION + "<a>login</a>", False, False),
    "a challenge": ("<html><title>Just a moment...</title>", False, True),
    "JSON that asks for a token": ('{"error": "Unauthorized"}', True, False),
    "JSON of a limit": ('{"error": "Rate limit exceeded; sign in for more"}', False, True),
    "JSON of another error": ('{"detail": "no such file"}', False, False),
    "XML that denies": ("<Error><Code>AccessDenied</Code></Error>", True, False),
    "XML that asks to wait": ("<Error><Code>SlowDown</Code></Error>", False, True),
}


@pytest.mark.parametrize(("text", "asks_for_login", "may_pass"), ANSWERS.values(), ids=ANSWERS)
def test_answers_tell_whether_a_token_or_waiting_may_help(text: str, asks_for_login: bool, may_pass: bool) -> None:
    found = content_of(text.encode())
    assert found is not None
    assert (found.is_answer, found.asks_for_login, found.may_pass) == (True, asks_for_login, may_pass)


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"hello", b"\0" * 5000, bytes(range(256))])
def test_what_is_unknown_has_no_name(head: bytes) -> None:
    assert named(head) is None


@pytest.mark.parametrize("head", [b"<!---->" * 600, b"<!--" * 1000, b"[" * 4096, b'{"error":' * 500, b"<" * 4096])
def test_hostile_text_takes_no_time(head: bytes) -> None:
    began = time.process_time()
    named(head)
    named(json.dumps({"error": "x" * 4000}).encode())
    assert time.process_time() - began < 1
