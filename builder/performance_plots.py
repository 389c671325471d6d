"""The plots of docs/performance.md from benchmarks/results.json: `python -m builder.performance_plots`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.suite import record
from benchmarks.suite.samples import median

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images" / "performance"
COLOURS: Final = {"ours": "#1b6ca8", "plain": "#b8b8b8"}
PHASES: Final = ("first look_ms", "imports_ms", "weights_ms", "text_ms", "denoise_ms", "decode_ms", "encode_ms")


def main() -> None:
    draw_all(record.read(), FOLDER)


def draw_all(measured: dict[str, Any], folder: Path) -> None:
    """A plot for each section that has one and was measured."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "performance", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        if name in measured:
            figure = Figure(figsize=(7.2, 3.2), layout="constrained")
            draw(figure, measured[name]["data"])
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def cold_start(figure: Figure, data: dict[str, Any]) -> None:
    axes, phases = figure.subplots(), data["phases_ms"]
    left = 0.0
    for phase in PHASES:
        seconds = statistics.median(phases[phase]) / 1000
        axes.barh("ours", seconds, left=left, label=phase.removesuffix("_ms"))
        left += seconds
    whole = {name: median(samples) for name, samples in data["figures"]["first picture s"].items()}
    look = median(data["figures"]["first look s"]["plain"])
    axes.barh("ours", max(0.0, whole["ours"] - left), left=left, label="the rest", color="#dddddd")
    axes.barh("plain", look, color="#8a8a8a", label="plain: imports and model")
    axes.barh("plain", whole["plain"] - look, left=look, color=COLOURS["plain"], label="plain: picture")
    axes.set_xlabel("seconds from the process's start to its first picture")
    axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def throughput(figure: Figure, data: dict[str, Any]) -> None:
    axes = figure.subplots()
    for offset, (upload_ms, figures) in enumerate(data["uploads_ms"].items()):
        rates = {name: median(samples) for name, samples in figures["jobs a second"].items()}
        places = [place + 0.4 * offset for place in range(len(rates))]
        axes.bar(places, list(rates.values()), width=0.38, label=f"uploads of {upload_ms} ms")
        axes.set_xticks([place + 0.2 for place in range(len(rates))], list(rates))
    axes.set_ylabel("jobs a second")
    axes.legend()


def scale(figure: Figure, data: dict[str, Any]) -> None:
    waiting, money = figure.subplots(1, 2)
    mixes = list(dict.fromkeys(row["mix"] for row in data["rows"]))
    for style, mix in zip(("-", "--", ":"), mixes, strict=False):
        for kind, colour in COLOURS.items():
            rows = [row for row in data["rows"] if row["mix"] == mix and row["kind"] == kind]
            rates, label = [row["rate"] for row in rows], f"{kind}, {mix}"
            waiting.plot(rates, [row["p95 s"] for row in rows], style, color=colour, label=label)
            money.plot(rates, [row["money per 1000"] for row in rows], style, color=colour, label=label)
    for axes, name in ((waiting, "p95 of waiting, s"), (money, "$ for 1,000 pictures")):
        axes.set(xscale="log", xlabel="jobs a minute", ylabel=name, ylim=(0, None))
    money.legend(fontsize=6)


PLOTS: Final[dict[str, Callable[[Figure, dict[str, Any]], None]]] = {
    "cold_start": cold_start,
    "throughput": throughput,
    "scale": scale,
}


if __name__ == "__main__":
    main()
