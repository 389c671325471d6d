"""`python -m flux_engine keys`, as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux_engine.cli.keys import main
from flux_engine.gateway.security.keys import key_id_of
from tests.servers import RedisProcess


@pytest.fixture
def environment(redis: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis.url)
    monkeypatch.delenv("RUNPOD_ENDPOINT_ID", raising=False)


@pytest.mark.usefixtures("environment")
def test_create_list_revoke(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "--user", "ada"]) == 0
    key, told = capsys.readouterr()
    key_id = key_id_of(key.strip())
    assert key_id is not None
    assert "generate,read" in told
    assert main(["create", "--user", "bob", "--scope", "admin", "--scope", "read", "--expires", "90d"]) == 0
    capsys.readouterr()

    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[1:3] for line in listed.splitlines()[1:]] == [["ada", "generate,read"], ["bob", "read,admin"]]
    assert key.split("_")[2].strip() not in listed

    assert main(["revoke", key.strip()]) == 0  # the whole key does as well
    assert main(["revoke", key_id]) == 0
    assert main(["revoke", "--user", "bob"]) == 0
    capsys.readouterr()
    main(["list"])
    assert capsys.readouterr().out.count("revoked 2") == 2


@pytest.mark.usefixtures("environment")
def test_what_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["revoke", "7Qm2xPf0aLzT"]) == 1
    assert "no such key: 7Qm2xPf0aLzT" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == ["ID", "USER", "SCOPES", "CREATED", "EXPIRES", "STATE"]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create"], "--user"),
        (["create", "--user", "a b"], "without blanks"),
        (["create", "--user", ""], "without blanks"),
        (["create", "--user", "ada\n2026 bob"], "without blanks"),
        (["create", "--user", "ada", "--scope", "root"], "invalid choice"),
        (["create", "--user", "ada", "--expires", "0d"], "such as 90d"),
        (["create", "--user", "ada", "--expires", "-5d"], "expected one argument"),
        (["create", "--user", "ada", "--expires", "9999999y"], "such as 90d"),
        (["revoke"], "required"),
        ([], "required"),
    ],
)
def test_bad_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code not in (0, None)
    assert said in capsys.readouterr().err + str(ended.value.code)


def test_it_says_that_redis_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(SystemExit, match="see REDIS_URL"):
        main(["list"])


def test_without_redis_url_keys_are_kept_by_the_embedded_server(tmp_path: Path) -> None:
    """In a process of its own, as an operator runs it, and once more to find what the first has left."""
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "flux_engine", "keys", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    key_id = key_id_of(run("create", "--user", "ada").strip())
    assert key_id is not None
    assert key_id in run("list")
