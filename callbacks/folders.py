"""Where a run goes: beside the logger's files when there is a logger, in a numbered folder of its own when not."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hiddenscope.locations import as_location, open_repository

RUN_FOLDER = "hiddenscope"
OWN_LOGS = "hiddenscope_logs"
"""Folder of the numbered runs of trainings without a logger."""


def run_location(logdir: str | os.PathLike[str], name: str = RUN_FOLDER) -> str:
    """The run's own folder, or address, in a log folder.

    >>> run_location("s3://bucket/logs/")
    's3://bucket/logs/hiddenscope'
    """
    where = os.fspath(logdir)
    return f"{where.rstrip('/')}/{name}" if is_remote(where) else str(Path(where) / name)


def is_remote(where: str) -> bool:
    """Whether ``where`` is an address rather than a path."""
    return "://" in where


def holds_run(location: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether a folder or address holds a run already, or what is left of one.

    Raises:
        OSError: the address cannot be reached.
    """
    if not is_remote(location):
        return (Path(location) / "snapshots").exists()
    return open_repository(as_location(location, storage_options) / "snapshots") is not None


def numbered(number: int) -> str:
    """The name of the first, second, … run in one log folder: ``hiddenscope``, ``hiddenscope_2``, …"""
    return RUN_FOLDER if number == 1 else f"{RUN_FOLDER}_{number}"


def name_of_run(
    logdir: str,
    taken: Collection[str],
    *,
    earlier: Iterable[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """The name of a training's run in its log folder.

    Args:
        logdir: the log folder, or an address.
        taken: names that other recordings of the same training have.
        earlier: names to look for a run to go on with, where a training is resumed.
        storage_options: for remote locations.

    Returns:
        The first of ``earlier`` that holds a run; else the first of ``hiddenscope``, ``hiddenscope_2``, … that holds
        none.
    """
    for name in earlier:
        if name not in taken and holds_run(run_location(logdir, name), storage_options):
            return name
    names = (numbered(number) for number in itertools.count(1))
    return next(
        name for name in names if name not in taken and not holds_run(run_location(logdir, name), storage_options)
    )


def numbered_folder(root: str) -> str:
    """A folder for a training that has no logger: the first ``root/hiddenscope_logs/version_N`` that is not there."""
    if is_remote(root):
        return root
    parent = Path(root) / OWN_LOGS
    return str(next(parent / f"version_{n}" for n in itertools.count() if not (parent / f"version_{n}").exists()))


def shortened(path: str) -> str:
    """``path`` as seen from the working directory, where that is shorter."""
    if is_remote(path):
        return path
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return min(relative, path, key=len)
