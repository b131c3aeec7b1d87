"""``hiddenscope report``: one run as one file that opens anywhere, for ever, without a network."""

from __future__ import annotations

import argparse
import html
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddenscope._version import __version__
from hiddenscope.errors import HiddenscopeError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from hiddenscope.run import Run

_STYLE = """
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 60px; background: #fff; color: #1c2530;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; } h2 { font-size: 20px; margin: 40px 0 6px; }
h3 { font-size: 16px; margin: 26px 0 4px; } p { margin: 6px 0 10px; max-width: 760px; } .muted { color: #5d6b7a; }
table { border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; }
td { padding: 3px 18px 3px 0; vertical-align: top; } td:first-child { color: #5d6b7a; }
.figure { border: 1px solid #e1e6ec; border-radius: 8px; overflow: hidden; }
@media print { .figure { break-inside: avoid; } }
"""
_ABOUT = {
    "epoch": "Every point is one hidden unit at one time step of one training epoch. Points lie near each other when "
    "the units respond alike to the probe sequences. From dark to light: from the first epoch to the last.",
    "step": "The same points by time step: where the network is within the sequence.",
    "class": "The same points by the class on whose sequences the unit is most active at that step.",
    "curves": "From top to bottom: loss and metrics; the intra-step entropy, which is high where the units of one step "
    "do different things; the same for every step; and the inter-step entropy, which is high for units that pass "
    "through many states along the sequence. All share one epoch axis.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("location", metavar="RUN", help="a recorded run, a folder above it, or its address")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="file to write (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from hiddenscope.run import open_run

    target: Path = args.output
    if target.is_dir():
        raise ValueError(f"expected a file to write, got the folder {target}; give a name such as {target}/report.html")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"expected a file in a folder that exists, got {target}; create {target.parent} first")
    text = report_html(open_run(args.location))
    target.write_text(text, encoding="utf-8")
    print(f"{target} ({len(text.encode()) / 2**20:.1f} MB)")
    return 0


def report_html(run: Run) -> str:
    """The report of a run: facts, and for each layer the pictures and curves with what they mean.

    The newest stored picture of each layer is shown; a layer without one is embedded here, which may take a while, and
    nothing is stored.

    Args:
        run: with at least one epoch.

    Returns:
        A whole HTML page with plotly.js inside; it makes no request.

    Raises:
        HiddenscopeError: no epoch is recorded.
    """
    if not len(run.epochs):
        raise HiddenscopeError(f"{run.path} has no epoch yet; the report needs at least one")
    parts = [_facts(run)]
    library: bool | str = True
    for layer in run.layers:
        result = _result(run, layer)
        parts.append(f"<h2>Layer <code>{html.escape(layer)}</code></h2>")
        parts.append(f'<p class="muted">{html.escape(_trust(result))}</p>')
        for title, about, figure, height in _figures(run, result):
            drawn = figure.to_html(
                full_html=False,
                include_plotlyjs=library,
                default_height=f"{height}px",
                config={"displaylogo": False, "responsive": True},
            )
            library = False
            note = (figure.layout.meta or {}).get("note", "")
            text = f"{about} ({note[0].upper() + note[1:]}.)" if note else about
            parts.append(f'<h3>{title}</h3><p>{html.escape(text)}</p><div class="figure">{drawn}</div>')
    title = html.escape(f"hiddenscope \u00b7 {run.name}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )


def _result(run: Run, layer: str) -> xr.Dataset:
    from hiddenscope.dashboard.picture import METHOD, picture

    stored = run.results.get(layer, METHOD)
    return picture(run, layer) if stored is None else stored


def _figures(run: Run, result: xr.Dataset) -> Iterator[tuple[str, str, go.Figure, int]]:
    from hiddenscope.dashboard import figures
    from hiddenscope.dashboard.library import class_names

    cloud = result["embedding"]
    yield "Embedding, by epoch", _ABOUT["epoch"], figures.embedding(cloud), 620
    yield "Embedding, by step", _ABOUT["step"], figures.embedding(cloud, color="step"), 620
    names = class_names(run)
    if names is not None:
        active = result["most_active_class"].rename("most active class")
        figure = figures.embedding(cloud, color=active, class_names=names)
        yield "Embedding, by class", _ABOUT["class"], figure, 620
    curves = figures.curves(run.metrics(), result["intra_step_entropy"], result["inter_step_entropy"])
    yield "Over epochs", _ABOUT["curves"], curves, 860


def _trust(result: xr.Dataset) -> str:
    from hiddenscope.dashboard import words

    measured = words.fidelity(result.attrs)
    made = f"MM-PHATE, {words.left_out(result, '')}"
    return f"{made}. How far to trust the picture: {measured}." if measured else f"{made}."


def _facts(run: Run) -> str:
    from hiddenscope.dashboard import words
    from hiddenscope.dashboard.figures.template import epoch_text

    described = run.description
    epochs = run.epochs
    rows: list[tuple[str, Any]] = [
        ("model", described.model),
        ("status", words.STATUS.get(run.status, run.status)),
        ("epochs", f"{len(epochs)}: {epoch_text(float(epochs[0]))} to {epoch_text(float(epochs[-1]))}"),
        (
            "probe",
            f"{len(described.samples)} sequences" + (f", {len(run.label_names)} classes" if run.label_names else ""),
        ),
    ]
    rows += [
        (f"layer {layer.name}", f"{layer.kind}, {len(layer.units)} units, {len(layer.steps)} steps")
        for layer in described.layers
    ]
    final = run.metrics().ffill().iloc[-1]
    rows += [(str(name), f"{value:.4g}") for name, value in final.items() if not str(name).startswith("hiddenscope/")]
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.updated_at))
    rows += [("last recorded", written), ("report by", f"hiddenscope {__version__}")]
    cells = "".join(f"<tr><td>{html.escape(str(a))}</td><td>{html.escape(str(b))}</td></tr>" for a, b in rows)
    return f"<table>{cells}</table>"
