"""What the measurements say: a table for the eyes, a file for the documentation, a plot."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rows import Outcome

RESULTS = Path("benchmarks/results")
PAGE = Path("docs/benchmarks.md")
_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"
PLOT = Path("docs/images/benchmarks.png")
LIVE_PLOT = Path("docs/images/benchmarks-live.png")


def table(outcomes: list[Outcome], machine: dict[str, Any]) -> str:
    """The goals table as Markdown, under a line about the machine."""
    return _table([_plain(outcome) for outcome in outcomes], machine)


def write(outcomes: list[Outcome], machine: dict[str, Any], *, name: str, into: Path = RESULTS) -> Path:
    """Everything measured, as JSON; numbers that are not finite become null."""
    rows = [
        {**_plain(outcome), "measurements": [run.as_json() for run in outcome.measurements]} for outcome in outcomes
    ]
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "rows": _finite(rows)}, indent=1) + "\n")
    return path


def document(results: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table of a results file into the page of the documentation, between its two markers."""
    text = page.read_text()
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    page.write_text(f"{before}{_BEGIN}\n{_table(results['rows'], results['machine'])}{_END}{after}")


def plot(results: dict[str, Any], path: Path = PLOT) -> Path | None:
    """Processor seconds and peak memory over nodes, for every method measured; None where there is nothing to draw."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    runs = [
        run
        for row in results["rows"]
        for run in row["measurements"]
        if run.get("cpu_s") is not None and run["method"] in ("mmphate", "m_phate", "umap", "tsne")
    ]
    if not runs:
        return None
    labels = {"mmphate": "hiddenscope", "m_phate": "m-phate 0.1.6", "umap": "UMAP", "tsne": "openTSNE"}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for method, label in labels.items():
        mine = sorted(
            {(run["nodes"], run["cpu_s"], run["peak_bytes"] / 2**30) for run in runs if run["method"] == method}
        )
        if mine:
            nodes, seconds, peaks = zip(*mine, strict=True)
            left.plot(nodes, seconds, "o", label=label)
            right.plot(nodes, peaks, "o", label=label)
    for axes, quantity in ((left, "processor time (s)"), (right, "peak memory (GiB)")):
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel=quantity)
        axes.grid(alpha=0.3)
    left.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def plot_live(results: dict[str, Any], path: Path = LIVE_PLOT) -> Path | None:
    """What every epoch of the longest live training cost, and how far the nodes shown before it moved; None if none."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    runs = [run for row in results["rows"] for run in row["measurements"] if (run.get("series") or {}).get("moved")]
    if not runs:
        return None
    series = max(runs, key=lambda run: run["nodes"])["series"]
    start = series.get("start", [0])[0]
    epochs = [start + number + 1 for number in range(len(series["cpu_s"]))]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    left.plot(epochs, series["cpu_s"], ".", markersize=2)
    left.axhline(0.4, color="0.5", linestyle="--", linewidth=1)
    left.set(ylabel="processor time of the epoch (s)", xlabel="epochs in the picture")
    left.set_ylim(0, 1.05 * max(0.4, *sorted(series["cpu_s"])[: max(1, int(0.995 * len(epochs)))]))
    right.plot(epochs, series["moved_most"], ".", markersize=2, label="farthest node")
    right.plot(epochs, series["moved"], ".", markersize=2, label="median node")
    right.set(ylabel="move (sd of the picture)", xlabel="epochs in the picture", ylim=(0, None))
    right.legend(frameon=False, markerscale=5)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _table(rows: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    place = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, load {machine['load']} to start"
    head = (
        f"{place}; {machine['system']}, Python {machine['python']}, {packages}.\n\n"
        "| what | measured | goal | met |\n|---|---|---|---|\n"
    )
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    lines = [f"| {row['row']} | {row['value']} | {row['goal']} | {verdicts[row['met']]} |" for row in rows]
    return head + "\n".join(lines) + "\n"


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {key: value for key, value in asdict(outcome).items() if key != "measurements"}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return bool(value) if type(value).__name__ == "bool" else value
