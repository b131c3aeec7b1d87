"""``hiddenscope report``: one run as one file that opens anywhere, for ever, without a network."""

from __future__ import annotations

import argparse
import html
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

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
body { margin: 0 auto; max-width: 1120px; padding: 28px 20px 60px; background: #fff; color: #1c2530;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 26px; margin: 0 0 2px; letter-spacing: -0.01em; } h2 { font-size: 20px; margin: 36px 0 4px; }
h3 { font-size: 16px; margin: 22px 0 2px; } p { margin: 4px 0 10px; max-width: 760px; } .muted { color: #5d6b7a; }
.facts { max-width: none; } .tiles { display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0 6px; }
.tile { border: 1px solid #e1e6ec; border-radius: 8px; padding: 7px 14px; min-width: 96px; }
.tile span { display: block; color: #5d6b7a; font-size: 12px; } .tile b { font-size: 19px; font-weight: 600; }
.tile b, .trust { font-variant-numeric: tabular-nums; }
.trust { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 18px; margin: 8px 0 2px; font-size: 14px; }
.trust > span { display: inline-flex; align-items: center; white-space: nowrap; }
.trust > span:first-child { min-width: 9.5em; }
.trust b { margin-right: 0.3em; }
.gauge { position: relative; width: 90px; height: 7px; margin: 0 8px; border-radius: 4px; background: #e1e6ec; }
.gauge i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: #0b63a8; }
.gauge u { position: absolute; top: -3px; bottom: -3px; width: 2px; background: #1c2530; }
nav { margin: 12px 0 0; font-size: 14px; } nav a { color: #0b63a8; text-decoration: none; margin-right: 14px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 16px; }
.pair section { min-width: 0; display: flex; flex-direction: column; } .pair .figure { margin-top: auto; }
.figure { border: 1px solid #e1e6ec; border-radius: 8px; overflow: hidden; }
@media print { .figure { break-inside: avoid; } }
"""
_ABOUT = {
    "epoch": "Every point is one hidden unit at one time step of one training epoch. Points lie near each other when "
    "the units respond alike to the probe sequences. From dark to light: from the first epoch to the last.",
    "step": "The same points by time step: where within the sequence the unit was.",
    "class": "The same points by the class on whose sequences the unit is most active at that step.",
    "curves": "From top to bottom: loss and metrics; the intra-step entropy, which is high where the units of one step "
    "do different things; the same for every step; and the inter-step entropy, which is high for units that pass "
    "through many states along the sequence. All share one epoch axis. Where phases are found they are marked above: "
    "processing while the units of a step become different from each other, compression while they become alike.",
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
        half: whether it stands beside another one, where there is room.
    """

    title: str
    about: tuple[str, ...]
    figure: go.Figure | None
    height: int
    part: str = ""
    half: bool = False


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
    body = _Body(LARGEST - 5 * 2**20, f"<script>{get_plotlyjs()}</script>")  # plotly.js takes the rest
    several = len(run.layers) > 1
    for layer in run.layers:
        result = _result(run, layer)
        body.heading(f"Layer <code>{html.escape(layer)}</code>", f"layer {layer}" if several else "")
        body.parts.append(_trust(result))
        part = ""
        for chapter in chapters(run, layer, result):
            if chapter.part != part:
                part = chapter.part
                body.heading(html.escape(part), f"{layer}: {part}" if several else part)
            body.add(chapter)
        body.close_pair()
    title = html.escape(f"hiddenscope \u00b7 {run.name}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{_facts(run)}{body.contents()}{''.join(body.parts)}</body></html>\n"
    )


class _Body:
    """What stands below the facts, as it grows."""

    def __init__(self, room: int, library: str) -> None:
        self.parts: list[str] = []
        self._room = room
        self._library = library  # before the first figure, once
        self._listed: list[tuple[str, str]] = []
        self._paired = False

    def heading(self, text: str, listed: str) -> None:
        self.close_pair()
        name = f"part-{len(self._listed)}"
        if listed:
            self._listed.append((name, listed))
        self.parts.append(f'<h2 id="{name}">{text}</h2>' if listed else f"<h2>{text}</h2>")

    def contents(self) -> str:
        """Links to the parts."""
        links = "".join(f'<a href="#{name}">{html.escape(text)}</a>' for name, text in self._listed)
        return f"<nav>{links}</nav>" if links else ""

    def add(self, chapter: Chapter) -> None:
        if chapter.half != self._paired:
            self.close_pair()
            if chapter.half:
                self.parts.append('<div class="pair">')
                self._paired = True
        heading = f"<h3>{html.escape(chapter.title)}</h3>" if chapter.title else ""
        drawn = heading + "".join(f"<p>{html.escape(text)}</p>" for text in chapter.about) + self._drawn(chapter)
        self.parts.append(f"<section>{drawn}</section>" if chapter.half else drawn)

    def close_pair(self) -> None:
        if self._paired:
            self.parts.append("</div>")
            self._paired = False

    def _drawn(self, chapter: Chapter) -> str:
        if chapter.figure is None:
            return ""
        if not chapter.figure.data:  # it says why it is empty
            said = " ".join(str(note.text) for note in chapter.figure.layout.annotations)
            return f'<p class="muted">{html.escape(re.sub(r"<[^<>]*>", " ", said))}</p>'
        drawn = chapter.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            default_height=f"{chapter.height}px",
            config={"displaylogo": False, "responsive": True},
        )
        size = len(drawn.encode())
        if size > self._room:
            return f'<p class="muted">This figure takes {size / 2**20:.1f} MB; the page shows it.</p>'
        self._room -= size
        library, self._library = self._library, ""
        return f'{library}<div class="figure">{drawn}</div>'


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
            if chapter.figure is None or not chapter.figure.data:
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

    yield from _figures(run, layer, result)
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


def _figures(run: Run, layer: str, result: xr.Dataset) -> Iterator[Chapter]:
    from hiddenscope.dashboard import figures
    from hiddenscope.dashboard.library import class_names
    from hiddenscope.dashboard.showing import clusters_and_phases

    cloud = result["embedding"]
    names = class_names(run)
    yield _noted("Embedding, by epoch", _ABOUT["epoch"], figures.embedding(cloud), 640)
    by_step = _noted("Embedding, by step", _ABOUT["step"], figures.embedding(cloud, color="step"), 460)
    yield replace(by_step, half=names is not None)
    if names is not None:
        active = result["most_active_class"].rename("most active class")
        figure = figures.embedding(cloud, color=active, class_names=names)
        yield replace(_noted("Embedding, by class", _ABOUT["class"], figure, 460), half=True)
    clusters, phases = clusters_and_phases(run, layer)
    intra, inter = result["intra_step_entropy"], result["inter_step_entropy"]
    curves = figures.curves(run.metrics(), intra, inter, clusters=clusters, phases=phases)
    yield _noted("Over epochs", _ABOUT["curves"], curves, 860)


def _noted(title: str, about: str, figure: go.Figure, height: int) -> Chapter:
    """With what the figure says of itself, such as that points were left out."""
    note = (figure.layout.meta or {}).get("note", "")
    return Chapter(title, (f"{about} ({note[0].upper() + note[1:]}.)" if note else about,), figure, height)


def _trust(result: xr.Dataset) -> str:
    from hiddenscope.dashboard import words
    from hiddenscope.dashboard.trust import EXPLAINED

    beside = ", ".join(part for part in (words.left_out(result, ""), words.measured_on(result.attrs)) if part)
    made = f'<p class="muted">MM-PHATE, {html.escape(beside)}.</p>'
    rows = []
    for group, members in groupby(words.measures(result.attrs), key=lambda one: one.group):
        bars = []
        for one in members:
            mark = "" if one.chance is None else f'<u style="left:{98 * one.chance:.0f}%"></u>'
            chance = f" ({one.by_chance} by chance)" if one.by_chance else ""
            bars.append(
                f'<span>{one.name}<span class="gauge"><i style="width:{100 * one.value:.0f}%"></i>{mark}</span>'
                f"<b>{one.number}</b> {one.unit}{chance}</span>"
            )
        rows.append(f'<div class="trust"><span>{group}</span>{"".join(bars)}</div>')
    if not rows:
        return made
    return f'{made}{"".join(rows)}<p class="muted">{html.escape(EXPLAINED)}</p>'


def _facts(run: Run) -> str:
    from hiddenscope.dashboard import words
    from hiddenscope.dashboard.figures.template import epoch_text

    described = run.description
    epochs = run.epochs
    classes = f", {len(run.label_names)} classes" if run.label_names else ""
    status = words.STATUS.get(run.status, run.status)
    if run.resumed_after:
        status += f", resumed after epoch {' and '.join(f'{epoch:g}' for epoch in run.resumed_after)}"
    lines = [
        [
            described.model,
            status,
            f"{len(epochs)} epochs, {epoch_text(float(epochs[0]))} to {epoch_text(float(epochs[-1]))}",
            f"probe of {len(described.samples)} sequences{classes}",
        ],
        [f"{each.name}: {each.kind}, {len(each.units)} units, {len(each.steps)} steps" for each in described.layers],
        [
            f"last recorded {time.strftime('%Y-%m-%d %H:%M', time.localtime(run.updated_at))}",
            f"report by hiddenscope {__version__}",
        ],
    ]
    said = "<br>".join(html.escape(" \u00b7 ".join(line)) for line in lines)
    final = run.metrics().ffill().iloc[-1]
    tiles = "".join(
        f'<div class="tile"><span>{html.escape(str(name))}</span><b>{value:.4g}</b></div>'
        for name, value in final.items()
        if not str(name).startswith("hiddenscope/") and value == value
    )
    return f'<p class="facts muted">{said}</p>' + (f'<div class="tiles">{tiles}</div>' if tiles else "")
