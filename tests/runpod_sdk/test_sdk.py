"""What comes with the SDK, in a process that has imported nothing else."""

from __future__ import annotations

import subprocess
import sys

SDK_ALONE = """
import sys
from flux_engine.runpod_sdk.sdk import import_runpod

runpod = import_runpod()
print(len({name for name in sys.modules if name.partition(".")[0] in ("paramiko", "invoke", "nacl", "cpuinfo")}))
from runpod.cli.groups.ssh import functions
from runpod.serverless.utils import rp_debugger
print(functions.paramiko.RSAKey.__module__, rp_debugger.PROCESSOR)
import cpuinfo
print(hasattr(cpuinfo, "get_cpu_info_json"))
"""


def test_the_sdk_comes_without_what_a_worker_never_uses() -> None:
    """And what was left out comes when it is used."""
    done = subprocess.run((sys.executable, "-c", SDK_ALONE), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0", "paramiko.rsakey Unable to get processor info.", "True"]
