"""``hiddenscope report``: one run as one file that opens anywhere, for ever, without a network."""

from __future__ import annotations

import argparse
import html
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddenscope._version import __version__
from hiddenscope.errors import HiddenscopeError, MissingExtraError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from hiddenscope.run import Run

LARGEST = 12 * 2**20
"""Most bytes of a report."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

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


@dataclass(frozen=True)
class Chapter:
    """One figure of the report.

    Attributes:
        title: what it shows.
        about: how to read it, one paragraph each; plain text.
        figure: None where only the words are shown.
        height: in pixels.
        part: the heading that it stands below; the layer's own where it is empty.
    """

    title: str
    about: tuple[str, ...]
    figure: go.Figure | None
    height: int
    part: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("location", metavar="RUN", help="a recorded run, a folder above it, or its address")
    parser.add_argument("-o", "--output", type=Path, help="file to write (report.html, unless --png is given)")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write every figure as a PNG file into this folder")


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from hiddenscope.run import open_run

    target: Path | None = args.output if args.output is not None or args.png is not None else Path("report.html")
    if target is not None and target.is_dir():
        raise ValueError(f"expected a file to write, got the folder {target}; give a name such as {target}/report.html")
    for folder in (None if target is None else target.absolute().parent, args.png and args.png.absolute().parent):
        if folder is not None and not folder.is_dir():
            raise ValueError(
                f"expected a place in a folder that exists, got {target or args.png}; "
                f"create {(target or args.png).parent} first"
            )
    opened = open_run(args.location)
    if target is not None:
        text = report_html(opened)
        target.write_text(text, encoding="utf-8")
        print(f"{target} ({len(text.encode()) / 2**20:.1f} MB)")
    if args.png is not None:
        for picture in report_pictures(opened, args.png):
            print(picture)
    return 0


def report_html(run: Run) -> str:
    """The report of a run: facts, and for each layer the pictures, the curves and the panels, with what they mean.

    The newest stored picture of each layer is shown; a layer without one is embedded here, which may take a while, and
    nothing is stored. Panels show what is stored. Figures that would make the file larger than 12 MB are left out, and
    the report says which.

    Args:
        run: with at least one epoch.

    Returns:
        A whole HTML page with plotly.js inside; it makes no request.

    Raises:
        HiddenscopeError: no epoch is recorded.
    """
    from plotly.offline import get_plotlyjs

    _need_epochs(run)
    parts = [_facts(run)]
    library: bool | str = True
    room = LARGEST - 5 * 2**20  # plotly.js takes the rest
    for layer in run.layers:
        result = _result(run, layer)
        parts.append(f"<h2>Layer <code>{html.escape(layer)}</code></h2>")
        parts.append(f'<p class="muted">{html.escape(_trust(result))}</p>')
        part = ""
        for chapter in chapters(run, layer, result):
            if chapter.part != part:
                part = chapter.part
                parts.append(f"<h2>{html.escape(part)}</h2>")
            heading = f"<h3>{html.escape(chapter.title)}</h3>" if chapter.title else ""
            parts.append(heading + "".join(f"<p>{html.escape(text)}</p>" for text in chapter.about))
            if chapter.figure is None:
                continue
            drawn = chapter.figure.to_html(
                full_html=False,
                include_plotlyjs=False,
                default_height=f"{chapter.height}px",
                config={"displaylogo": False, "responsive": True},
            )
            room -= len(drawn.encode())
            if room < 0:
                room += len(drawn.encode())
                parts.append(f'<p class="muted">This figure takes {len(drawn) / 2**20:.1f} MB; the page shows it.</p>')
                continue
            if library:
                parts.append(f"<script>{get_plotlyjs()}</script>")
                library = False
            parts.append(f'<div class="figure">{drawn}</div>')
    title = html.escape(f"hiddenscope \u00b7 {run.name}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )


def report_pictures(run: Run, folder: Path) -> list[Path]:
    """Every figure of the report as a PNG file, drawn by an installed Chromium through kaleido.

    Args:
        run: with at least one epoch.
        folder: where the files go; made where it does not exist.

    Raises:
        MissingExtraError: kaleido is not installed.
        HiddenscopeError: no epoch is recorded, or there is no Chromium.
    """
    _need_epochs(run)
    try:
        import kaleido
    except ImportError:
        raise MissingExtraError("kaleido", "pictures", "drawing figures as PNG files") from None
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise HiddenscopeError("PNG files need Chromium, found none; on Debian: apt-get install chromium")
    folder.mkdir(exist_ok=True)
    wanted = []
    for layer in run.layers:
        for number, chapter in enumerate(chapters(run, layer, _result(run, layer)), start=1):
            if chapter.figure is None:
                continue
            words = "-".join(re.findall(r"[a-z0-9]+", f"{layer} {number:02d} {chapter.part} {chapter.title}".lower()))
            options = {"format": "png", "width": 1080, "height": chapter.height, "scale": 1}
            figure = chapter.figure.update_layout(paper_bgcolor="#ffffff")
            wanted.append({"fig": figure, "path": str(folder / f"{words[:80]}.png"), "opts": options})
    kaleido.write_fig_from_object_sync(wanted, kopts={"path": browser, "n": 1})
    return [Path(each["path"]) for each in wanted]


def chapters(run: Run, layer: str, result: xr.Dataset) -> Iterator[Chapter]:
    """The figures of one layer: the picture, the curves, and every panel that has something to show.

    Args:
        run: pinned to a commit.
        layer: one of its layers.
        result: the picture of the layer.
    """
    from hiddenscope.dashboard.panels import all_panels
    from hiddenscope.dashboard.showing import figures_of, panel_scene, view_of

    yield from _figures(run, result)
    view = view_of(run, layer)
    for panel in all_panels():
        try:
            scene = panel_scene(panel, run, view)
            empty = scene is None or (panel.methods and not any(map(_is_there, scene.results.values())))
            shown = [] if scene is None or empty else list(figures_of(panel.draw(scene)))
        except Exception as error:  # one panel must not cost the report
            yield Chapter("", (f"This part failed: {type(error).__name__}: {error}",), None, 0, panel.title)
            continue
        for number, figure in enumerate(shown):
            about = (*((panel.about,) if number == 0 else ()), *figure.words)
            yield Chapter("", about, figure.figure if figure.height else None, figure.height, panel.title)


def _is_there(result: xr.Dataset | None) -> bool:
    return result is not None


def _need_epochs(run: Run) -> None:
    if not len(run.epochs):
        raise HiddenscopeError(f"{run.path} has no epoch yet; the report needs at least one")


def _result(run: Run, layer: str) -> xr.Dataset:
    from hiddenscope.dashboard.picture import METHOD, picture

    stored = run.results.get(layer, METHOD)
    return picture(run, layer) if stored is None else stored


def _figures(run: Run, result: xr.Dataset) -> Iterator[Chapter]:
    from hiddenscope.dashboard import figures
    from hiddenscope.dashboard.library import class_names

    cloud = result["embedding"]
    yield _noted("Embedding, by epoch", _ABOUT["epoch"], figures.embedding(cloud), 620)
    yield _noted("Embedding, by step", _ABOUT["step"], figures.embedding(cloud, color="step"), 620)
    names = class_names(run)
    if names is not None:
        active = result["most_active_class"].rename("most active class")
        figure = figures.embedding(cloud, color=active, class_names=names)
        yield _noted("Embedding, by class", _ABOUT["class"], figure, 620)
    curves = figures.curves(run.metrics(), result["intra_step_entropy"], result["inter_step_entropy"])
    yield _noted("Over epochs", _ABOUT["curves"], curves, 860)


def _noted(title: str, about: str, figure: go.Figure, height: int) -> Chapter:
    """With what the figure says of itself, such as that points were left out."""
    note = (figure.layout.meta or {}).get("note", "")
    return Chapter(title, (f"{about} ({note[0].upper() + note[1:]}.)" if note else about,), figure, height)


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
