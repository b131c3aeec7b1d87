"""The runs below a folder, as a table: ``hiddenscope info``."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from hiddenscope.description import RunDescription
from hiddenscope.errors import HiddenscopeError, RunNotFoundError
from hiddenscope.run import RunInfo, find_runs, open_run

_HEADER = ("run", "status", "epochs", "layers (step × unit × sample)", "size", "last loss", "age")  # noqa: RUF001
_LOSSES = ("val_loss", "train_loss", "loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiddenscope info``."""
    parser.add_argument("path", metavar="LOGDIR", help="a log folder, a run, or an s3://bucket/prefix")


def run(args: argparse.Namespace) -> int:
    """Print the table; runs that cannot be read are listed below it."""
    infos = find_runs(args.path, unreadable=True)
    if not infos:
        open_run(args.path)  # says what there is instead
        raise RunNotFoundError(f"no run at {args.path}")
    readable = [info for info in infos if info.problem is None]
    if readable:
        print(table([_HEADER, *(row(info) for info in readable)]))
    for info in infos:
        if info.problem is not None:
            print(printable(f"{info.name}: {info.problem}"))
    return 0


def row(info: RunInfo) -> tuple[str, ...]:
    """One run, as the cells of `_HEADER`."""
    shapes, loss = "", ""
    if info.epoch_count:
        try:
            opened = open_run(info.path)
            shapes = layers_in_words(opened.description)
            loss = last_loss({str(name): column.tolist() for name, column in opened.metrics().items()})
        except HiddenscopeError as error:  # damaged where `find_runs` does not look
            shapes = str(error)
    return (
        info.name,
        info.status,
        str(info.epoch_count),
        shapes,
        "" if "://" in info.path else bytes_in_words(folder_bytes(Path(info.path))),
        loss,
        duration_in_words(time.time() - info.updated_at),
    )


def layers_in_words(description: RunDescription) -> str:
    """The layers of each shape, and the shape: a stack with its gates has many names and few shapes."""
    alike: dict[tuple[int, int], list[str]] = {}
    for layer in description.layers:
        alike.setdefault((layer.steps.size, layer.units.size), []).append(layer.name)
    return ", ".join(
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} "
        f"{steps}×{units}×{description.samples.size}"  # noqa: RUF001
        for (steps, units), names in alike.items()
    )


def last_loss(metrics: dict[str, list[float]]) -> str:
    """The newest value of what looks most like the loss, with its name; empty when nothing does."""
    names = [*_LOSSES, *sorted(name for name in metrics if "loss" in name.lower())]
    for name in names:
        finite = [value for value in metrics.get(name, []) if not math.isnan(value)]
        if finite:
            return f"{finite[-1]:.4g} ({name})"
    return ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in aligned columns.

    >>> print(table([("run", "epochs"), ("version_0", "7")]))
    run        epochs
    version_0  7
    """
    plain = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in plain)
    return "\n".join(line.rstrip() for line in lines)


def printable(text: str) -> str:
    """Text without the control characters that a terminal would obey.

    >>> printable("lstm" + chr(27) + "[2J")
    'lstm?[2J'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def folder_bytes(folder: Path) -> int:
    """How much the files below a folder hold; files that vanish meanwhile count as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def bytes_in_words(count: int) -> str:
    """
    >>> [bytes_in_words(count) for count in (0, 999, 64_300, 5_000_000, 12_345_678_901)]
    ['0 B', '999 B', '64 kB', '5.0 MB', '12 GB']
    """
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def duration_in_words(seconds: float) -> str:
    """
    >>> [duration_in_words(seconds) for seconds in (-3, 8, 100, 7200, 200_000)]
    ['0 s', '8 s', '2 min', '2 h', '2 days']
    """
    seconds = max(0.0, seconds)
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
