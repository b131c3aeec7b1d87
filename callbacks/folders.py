"""Where a run goes: beside the logger's files when there is a logger, in a numbered folder of its own when not."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection
from pathlib import Path

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


def holds_run(location: str) -> bool:
    """Whether a folder holds a run already; addresses are not asked."""
    return not is_remote(location) and (Path(location) / "snapshots").exists()


def fresh_name(logdir: str, taken: Collection[str]) -> str:
    """The first of ``hiddenscope``, ``hiddenscope_2``, … that holds no run and that nobody else has taken."""
    for number in itertools.count(1):
        name = RUN_FOLDER if number == 1 else f"{RUN_FOLDER}_{number}"
        if name not in taken and not holds_run(run_location(logdir, name)):
            return name
    raise AssertionError("unreachable")


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
