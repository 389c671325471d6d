"""Benchmarks of this tree beside those of an earlier commit, in turns in one run.

    python -m benchmarks.before_after dab7170 overhead cache_hit [--rounds 3]

Each round runs every benchmark in both trees, every second round in the other order. Of each line that holds the same
words in both, the medians of its numbers are printed as before → after. Both use what is installed now.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
NUMBER: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")

Lines = dict[str, list[list[float]]]  # by words, the numbers of each round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("benchmarks", nargs="+", help="modules of benchmarks/ that both trees have")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with _tree_of(options.commit) as before:
        for name in options.benchmarks:
            print(f"\n{name}: {options.commit} → this tree, medians of {options.rounds} rounds\n")
            seen: dict[Path, Lines] = {before: {}, ROOT: {}}
            for turn in range(options.rounds):
                for tree in seen if turn % 2 == 0 else reversed(seen):
                    _run(name, tree, seen[tree])
            for line in compared(seen[before], seen[ROOT]):
                print(line)


@contextmanager
def _tree_of(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="before-") as name:
        tree = Path(name) / "tree"
        git = ("git", "-C", str(ROOT), "worktree")
        subprocess.run((*git, "add", "--quiet", "--detach", str(tree), commit), check=True)
        try:
            yield tree
        finally:
            subprocess.run((*git, "remove", "--force", str(tree)), check=True)


def _run(name: str, tree: Path, lines: Lines) -> None:
    command = (sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}")
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed in {tree.name}:\n{done.stdout}{done.stderr}")
    for words, numbers in read(done.stdout):
        lines.setdefault(words, []).append(numbers)


def read(printed: str) -> Iterator[tuple[str, list[float]]]:
    """Of each line its words, with # for each number, and the numbers; lines without a number are left out."""
    for line in printed.splitlines():
        numbers = [float(number.replace(",", "")) for number in NUMBER.findall(line)]
        if numbers:
            yield " ".join(NUMBER.sub("#", line).split()), numbers


def compared(before: Lines, after: Lines) -> Iterator[str]:
    """The lines of both, each # as the medians before → after; what is the same in both stands once."""
    for words in (words for words in before if words in after):
        pairs = zip(_medians(before[words]), _medians(after[words]), strict=True)
        shown = [f"{one:g}" if one == other else f"{one:g} → {other:g}" for one, other in pairs]
        yield words.replace("#", "{}").format(*shown)


def _medians(rounds: list[list[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


if __name__ == "__main__":
    main()
