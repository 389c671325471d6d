"""What `benchmarks.gpu` measured, written into the table of cards: `python -m builder.calibrate gpu.json`.

The card's entry in `flux_engine/models/planning/calibration.json` gets the shares that were measured and says where
they come from; what was not measured stays as it was. `make docs` then renews the tables that depend on them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flux_engine.models.planning.calibration import FILE
from flux_engine.models.planning.gpus import CARDS, short_name

BOUNDS: Final = {"eager": (0.05, 1.0), "compiled": (0.05, 1.0), "low": (0.05, 1.0), "int8_gain": (0.3, 4.0)}


class CalibrationError(Exception):
    """What was measured cannot be written into the table; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """Write the entry of the report's card; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m builder.calibrate", description="Measured shares into the table.")
    parser.add_argument("report", type=Path, help="gpu.json of `python -m benchmarks.gpu`")
    parser.add_argument("--table", type=Path, default=FILE, help="by default the one that plans are made with")
    options = parser.parse_args(arguments)
    try:
        report = json.loads(options.report.read_text(encoding="utf-8"))
        card, entry = entry_of(report)
    except OSError as error:
        parser.error(f"{options.report}: {error.strerror}")
    except (CalibrationError, ValueError) as error:
        parser.error(f"{options.report}: {error}")
    table = json.loads(options.table.read_text(encoding="utf-8"))
    before = table.get(card, {})
    table[card] = before | entry
    options.table.write_text(json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, value in entry.items():
        print(f"{card}: {name} {before.get(name, 'interpolated')} -> {value}")
    print("now `make docs`, which renews docs/gpus.md")
    return 0


def entry_of(report: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The card and what its entry gets. Raises CalibrationError where the report has nothing for the table."""
    try:
        device, shares, figures = report["device"], report["constants"]["shares"], report["figures"]
        name = str(device["name"])
    except (KeyError, TypeError) as error:
        raise CalibrationError("not a report of `python -m benchmarks.gpu`") from error
    if name not in {card.name for card in CARDS}:
        known = ", ".join(short_name(card) for card in CARDS)
        raise CalibrationError(
            f"{name} is not in the table of cards; add it to flux_engine/models/planning/gpus.py: {known}"
        )
    measured = {key: shares[key] for key in BOUNDS if key in shares}
    if not measured:
        raise CalibrationError("no share was measured: the sections `plain` and `ours` have to be done")
    for key, value in measured.items():
        low, high = BOUNDS[key]
        if not isinstance(value, int | float) or not low <= value <= high:
            raise CalibrationError(
                f"{key} is {value}, and cannot be outside of {low} to {high}: the clock or card is off"
            )
    versions = ", ".join(f"{key} {figures.get(f'version of {key}', 'unknown')}" for key in ("torch", "diffusers"))
    origin = f"measured by benchmarks.gpu with {versions}, driver {figures.get('driver', 'unknown')}"
    return name, {**measured, "origin": origin}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
