from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.servers import ACCESS_KEY, SECRET_KEY, RedisProcess, S3Process


@pytest.fixture(autouse=True)
def nothing_private_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Every test of this folder runs with every logger at DEBUG, and none may say any of this."""
    caplog.set_level(logging.DEBUG)
    yield
    for private in (SECRET_KEY, ACCESS_KEY, "X-Amz-Signature", "Signature=", "a red sun"):
        assert private not in caplog.text


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Process]:
    """Shared by the tests that do not break it."""
    server = S3Process(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisProcess(folder)
    server.start()
    yield server
    server.kill()
