"""Pages that show a file, for which the file's own address is certain; every other URL stays as it is."""

from __future__ import annotations

import pytest

from flux_engine.net.pages import file_address


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("https://github.com/o/r/blob/main/a%20b/sun.png?raw=true#x", "https://github.com/o/r/raw/main/a%20b/sun.png"),
        ("https://huggingface.co/o/r/blob/main/x.safetensors", "https://huggingface.co/o/r/resolve/main/x.safetensors"),
        (
            "https://huggingface.co/datasets/o/r/blob/main/x.png",
            "https://huggingface.co/datasets/o/r/resolve/main/x.png",
        ),
        ("https://hf.co/o/r/blob/main/x.safetensors", "https://huggingface.co/o/r/resolve/main/x.safetensors"),
        (
            "HTTPS://www.HuggingFace.co/o/r/resolve/main/a%20b.safetensors?download=true",
            "https://huggingface.co/o/r/resolve/main/a%20b.safetensors?download=true",
        ),
        ("https://GitHub.com/o/r/blob/main/sun.png", "https://GitHub.com/o/r/raw/main/sun.png"),
        ("https://www.dropbox.com/s/abc/x.png", "https://www.dropbox.com/s/abc/x.png?dl=1"),
        ("https://www.dropbox.com/scl/fi/abc/x.png?rlkey=k", "https://www.dropbox.com/scl/fi/abc/x.png?rlkey=k&dl=1"),
        (
            "https://drive.google.com/file/u/0/d/1AbCdEfGhIjKlMn/view",
            "https://drive.google.com/uc?export=download&id=1AbCdEfGhIjKlMn",
        ),
        ("https://gitlab.com/g/s/p/-/blob/main/x.png", "https://gitlab.com/g/s/p/-/raw/main/x.png"),
        (
            "https://www.dropbox.com/scl/fi/abc/x.png?rlkey=k&dl=0",
            "https://www.dropbox.com/scl/fi/abc/x.png?rlkey=k&dl=1",
        ),
        (
            "https://drive.google.com/file/d/1AbCdEfGhIjKlMn/view?usp=sharing",
            "https://drive.google.com/uc?export=download&id=1AbCdEfGhIjKlMn",
        ),
    ],
)
def test_the_address_of_the_file(page: str, file: str) -> None:
    assert file_address(page) == file


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/blob/main/x.png",
        "https://github.com/o/r/raw/main/sun.png",
        "https://github.com.evil.example/o/r/blob/main/x.png",
        "https://bucket.example/x.png?X-Key=a%2Fb&dl=0",
        "https://www.dropbox.com/scl/fi/abc/x.png?rlkey=k&dl=1",
        "https://www.dropbox.com/scl/fi/abc/x.png?raw=1&rlkey=k",
        "https://dl.dropboxusercontent.com/s/abc/x.png",
        "https://huggingface.co/o/r/resolve/main/x.safetensors?download=true",
    ],
)
def test_every_other_url_stays(url: str) -> None:
    assert file_address(url) == url
