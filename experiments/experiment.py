"""Experiments: each runs the whole on some data, and leaves tables, figures and a summary in a folder.

An experiment is one module with one `Experiment`, listed in `EXPERIMENTS`. Its function is handed a `Context`, through
which it keeps what took long to compute (so that a run that was killed goes on where it stopped), shows its progress,
and writes what came out.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import xarray as xr

from hiddenscope._version import __version__
from hiddenscope.experiments.keeping import load_dataset, save_dataset

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

EXPERIMENTS: tuple[str, ...] = (
    "hiddenscope.experiments.bifurcations:EXPERIMENT",
    "hiddenscope.experiments.baselines:EXPERIMENT",
    "hiddenscope.experiments.nulls:EXPERIMENT",
    "hiddenscope.experiments.activities:EXPERIMENT",
    "hiddenscope.experiments.architectures:EXPERIMENT",
    "hiddenscope.experiments.reaches:EXPERIMENT",
    "hiddenscope.experiments.stopping:EXPERIMENT",
    "hiddenscope.experiments.responses:EXPERIMENT",
    "hiddenscope.experiments.seq2seq:EXPERIMENT",
    "hiddenscope.experiments.sentiment:EXPERIMENT",
    "hiddenscope.experiments.shakespeare:EXPERIMENT",
)
"""Where the experiments are, each as ``"module:NAME"``. The modules import torch and the like inside functions."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: as it is typed.
        summary: what it shows, in a line.
        run: does all of it; whatever it raises ends the experiment, and what was cached until then stays.
        add_arguments: adds options of its own to its parser.
    """

    name: str
    summary: str
    run: Callable[[Context], None]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None


@dataclass(frozen=True)
class Picture:
    """A figure that is to become a PNG."""

    figure: go.Figure
    path: Path
    width: int
    height: int


class Context:
    """What an experiment is given: where to write, how large to be, and which seed to draw from.

    Args:
        out: the folder for all that is written; made where it does not exist.
        quick: whether the smallest size that still runs every line is wanted.
        seed: of all randomness.
        arguments: the options of the experiment itself.
        fresh: compute anew what is cached.
    """

    def __init__(
        self,
        out: Path,
        *,
        quick: bool = False,
        seed: int = 0,
        arguments: argparse.Namespace | None = None,
        fresh: bool = False,
    ) -> None:
        self.out = out
        self.quick = quick
        self.seed = seed
        self.arguments = argparse.Namespace() if arguments is None else arguments
        self.fresh = fresh
        self.notes: list[str] = []
        self.numbers: dict[str, Any] = {}
        self.files: list[str] = []
        self.pictures: list[Picture] = []
        self.reused: list[str] = []
        self.computed: list[str] = []
        out.mkdir(parents=True, exist_ok=True)

    def cached(self, name: str, parameters: Mapping[str, Any], compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        """What ``compute`` gives, from the folder ``cache`` where an earlier run left it there.

        Args:
            name: what it is; part of the file's name.
            parameters: all that the result depends on, as values JSON knows. The seed and the package's version need
                not be among them, they always count.
            compute: takes no arguments; gives plain numbers and texts in a dataset.

        Returns:
            The dataset; its attribute ``seconds`` says how long it took to compute, whenever that was.
        """
        key = {"name": name, "parameters": dict(parameters), "seed": self.seed, "version": __version__}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        path = self.out / "cache" / f"{name}-{digest}.npz"
        if not self.fresh and path.exists():
            self.reused.append(name)
            return load_dataset(path)
        began = time.perf_counter()
        dataset = compute()
        dataset = dataset.assign_attrs(seconds=time.perf_counter() - began)
        path.parent.mkdir(exist_ok=True)
        save_dataset(dataset, path)
        self.computed.append(name)
        return dataset

    def table(self, name: str, frame: pd.DataFrame, *, index: bool = False) -> Path:
        """Write a table as ``<name>.csv``."""
        path = self.out / f"{name}.csv"
        _write(path, frame.to_csv(index=index, float_format="%.6g"))
        self.files.append(path.name)
        return path

    def figure(self, name: str, figure: go.Figure, *, width: int = 1000, height: int = 640, title: str = "") -> Path:
        """Write a figure as ``<name>.html``, and at the end of the experiment as ``<name>.png``.

        The page takes plotly.js from a file in the same folder, so that it opens without a network.

        Args:
            name: of the file, and of the page where ``title`` is empty.
            figure: of `hiddenscope.dashboard.figures`, or made for this experiment.
            width: of the PNG, in pixels.
            height: of the PNG, in pixels.
            title: of the page.
        """
        from plotly.offline import get_plotlyjs

        library = self.out / "plotly.min.js"
        if not library.exists():
            _write(library, get_plotlyjs())
        path = self.out / f"{name}.html"
        body = figure.to_html(
            full_html=False, include_plotlyjs="directory", default_width="100%", default_height=f"{height}px"
        )
        _write(path, _PAGE.format(title=html.escape(title or name), body=body))
        self.files.append(path.name)
        self.pictures.append(Picture(figure, path.with_suffix(".png"), width, height))
        return path

    def progress(self, iterable: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
        """The items, with a progress bar on a terminal."""
        from tqdm import tqdm

        yield from tqdm(iterable, desc=title, total=total, disable=None, leave=False, file=sys.stderr)

    def say(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Say something that whoever reads the results has to know; it is kept in ``summary.json``."""
        self.notes.append(text)
        self.say(f"note: {text}")

    def number(self, name: str, value: float | int | str | bool | None) -> None:
        """Keep one result in ``summary.json``."""
        self.numbers[name] = value


def all_experiments() -> dict[str, Experiment]:
    """Every experiment there is, by name."""
    found = {}
    for place in EXPERIMENTS:
        module, _, name = place.partition(":")
        experiment = getattr(importlib.import_module(module), name)
        assert isinstance(experiment, Experiment), place
        found[experiment.name] = experiment
    return found


def carry_out(
    experiment: Experiment,
    context: Context,
    *,
    pictures: bool = True,
    command: str = "",
) -> Path:
    """Run an experiment and write its ``summary.json``, whatever becomes of it.

    Args:
        experiment: what to run.
        context: what to run it with.
        pictures: whether figures are also written as PNG, which takes Chromium and some seconds each.
        command: what was typed.

    Returns:
        The path of the summary.
    """
    from hiddenscope.experiments.machine import describe_machine, describe_versions

    path = context.out / "summary.json"
    began, started = time.perf_counter(), time.time()
    status = "failed"
    try:
        experiment.run(context)
        if pictures:
            _take(context)
        status = "finished"
    except (KeyboardInterrupt, SystemExit):
        status = "interrupted"
        raise
    finally:
        seconds = time.perf_counter() - began
        summary = {
            "experiment": experiment.name,
            "summary": experiment.summary,
            "status": status,
            "command": command,
            "quick": context.quick,
            "seed": context.seed,
            "options": {name: _plain(value) for name, value in vars(context.arguments).items()},
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(time.process_time(), 2),
            "computed": context.computed,
            "reused": context.reused,
            "numbers": {name: _plain(value) for name, value in context.numbers.items()},
            "notes": context.notes,
            "files": sorted(set(context.files)),
            "machine": describe_machine(),
            "versions": describe_versions(),
        }
        _write(path, json.dumps(summary, indent=1) + "\n")
    return path


def _take(context: Context) -> None:
    from hiddenscope.experiments.photographs import take

    missing = take(context.pictures)
    if missing:
        context.note(missing)
    else:
        context.files.extend(picture.path.name for picture in context.pictures)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 0; background: #fff; color: #1c2530; font: 14px system-ui, sans-serif; }}</style>
</head><body>{body}</body></html>
"""


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _plain(value: Any) -> Any:
    """The value as JSON knows it; numbers that are not finite become text."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)
