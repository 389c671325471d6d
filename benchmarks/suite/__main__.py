"""The comparison with the plain worker: `make bench`, or `python -m benchmarks.suite [NAME ...]`.

Each section is a process of its own with a bound on its time; one that fails is said at the end, costs no other, and
leaves what an earlier run recorded. `--missing` leaves out what is recorded already. At the end docs/performance.md and
its plots are made of the record.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Final

from benchmarks.suite import record
from benchmarks.suite.samples import rounded

SECTIONS: Final = {  # and the seconds after which it is given up
    "cold_start": 420,
    "throughput": 600,
    "own_cost": 300,
    "hits": 180,
    "loras_and_clips": 180,
    "loading": 240,
    "gateway": 180,
    "scale": 120,
}
END_WITHIN_S: Final = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; all of them where none is named")
    parser.add_argument("--missing", action="store_true", help="only what is not recorded yet")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        _measure(options.only)
        return 0
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    recorded = record.read() if options.missing else {}
    failed = [name for name in options.sections or SECTIONS if name not in recorded and not _in_a_process(name)]
    for command in (("-m", "builder.performance_plots"), ("-m", "builder.docs")):
        subprocess.run((sys.executable, *command), check=True)
    if failed:
        print(f"failed: {', '.join(failed)}; run `python -m benchmarks.suite {' '.join(failed)}`")
    return len(failed)


def _in_a_process(name: str) -> bool:
    print(f"{name} ...", flush=True)
    began = time.perf_counter()
    command = (sys.executable, "-W", "ignore", "-m", "benchmarks.suite", "--only", name)
    with subprocess.Popen(command) as section:
        try:
            is_done = section.wait(SECTIONS[name]) == 0
        except subprocess.TimeoutExpired:
            is_done = False
            section.send_signal(signal.SIGINT)  # as Ctrl-C: it ends the processes that it started
            with suppress(subprocess.TimeoutExpired):
                section.wait(END_WITHIN_S)
            section.kill()
    print(f"{name}: {'measured' if is_done else 'FAILED'} in {time.perf_counter() - began:.0f} s", flush=True)
    return is_done


def _measure(name: str) -> None:
    began = time.perf_counter()
    data = asyncio.run(import_module(f"benchmarks.suite.{name}").measure())
    record.write(name, rounded(data), seconds=time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
