"""What comes with the SDK, in a process that has imported nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SDK_ALONE = """
import sys
from flux_engine.runpod_sdk.sdk import import_runpod

runpod = import_runpod()
left_out = ("paramiko", "invoke", "nacl", "cpuinfo", "tomli", "tomlkit")
print(len({name for name in sys.modules if name.partition(".")[0] in left_out}), runpod.api_key)
from runpod.cli.groups.ssh import functions
from runpod.cli.groups.config.functions import set_credentials
from runpod.serverless.utils import rp_debugger
print(functions.paramiko.RSAKey.__module__, rp_debugger.PROCESSOR)
import cpuinfo
print(hasattr(cpuinfo, "get_cpu_info_json"))
set_credentials("a key", overwrite=True)
"""


def test_the_sdk_comes_without_what_a_worker_never_uses(tmp_path: Path) -> None:
    """And what was left out comes when it is used: here, and where the SDK's import itself reads a key."""
    begun = [imported(tmp_path) for _ in range(2)]
    assert [lines[0] for lines in begun] == ["0 None", "3 a key"]  # tomli's three modules
    for lines in begun:
        assert lines[1:] == ["paramiko.rsakey Unable to get processor info.", "True"]


def imported(home: Path) -> list[str]:
    """What SDK_ALONE prints."""
    environment = {name: value for name, value in os.environ.items() if name != "RUNPOD_API_KEY"} | {"HOME": str(home)}
    command = (sys.executable, "-c", SDK_ALONE)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
