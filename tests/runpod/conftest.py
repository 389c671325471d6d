"""What the tests of this folder share: a way to start the stand-in, and the official client bound to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from local_platform.server import API_KEY, Platform

ECHO: Final = (sys.executable, "-u", str(Path(__file__).parent / "handlers" / "echo.py"))


@pytest.fixture(name="official")
def _official(monkeypatch: pytest.MonkeyPatch) -> Callable[[Platform], object]:
    """Point the official client at a platform; returns its module."""
    import runpod

    def bind(platform: Platform) -> object:
        monkeypatch.setattr(runpod, "endpoint_url_base", platform.client_url)
        monkeypatch.setattr(runpod, "api_key", API_KEY)
        return runpod

    return bind
