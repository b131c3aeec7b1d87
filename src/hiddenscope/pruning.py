"""Space that runs do not need, given back: ``hiddenscope prune``.

Every commit keeps the former one readable: superseded epochs, replaced results, and the bookkeeping of both. Pruning
leaves the newest commit of each repository, which is all that a reader who opens the run now can see. Nothing else is
touched unless it is asked for by name.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hiddenscope.errors import RunLockedError, RunNotFoundError
from hiddenscope.listing import bytes_in_words, folder_bytes
from hiddenscope.locations import Location, RepositoryLock, as_location, open_repository, readable
from hiddenscope.run import RunInfo, find_runs, open_run


@dataclass(frozen=True)
class Step:
    """One thing to remove: said first, done later."""

    what: str
    size: int
    do: Callable[[], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiddenscope prune``."""
    parser.add_argument("path", metavar="LOGDIR", help="a log folder, or a run")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser.add_argument("--empty", action="store_true", help="also remove runs that never recorded an epoch")
    parser.add_argument(
        "--results", action="store_true", help="also remove all embeddings and the like, which can be computed again"
    )


def run(args: argparse.Namespace) -> int:
    """Say what would be removed, ask, remove."""
    place = as_location(args.path)
    if place.folder is None:
        raise ValueError(f"runs are pruned in folders, got {place}")
    infos = find_runs(args.path, unreadable=True)
    if not infos:
        open_run(args.path)  # says what there is instead
        raise RunNotFoundError(f"no run at {args.path}")
    steps, skipped = plan(infos, empty=args.empty, results=args.results)
    for line in skipped:
        print(line)
    if not steps:
        print("nothing to remove")
        return 0
    for step in steps:
        print(f"{bytes_in_words(step.size):>8}  {step.what}")
    total = bytes_in_words(sum(step.size for step in steps))
    if not args.yes:
        if not sys.stdin.isatty():
            print(f"nothing was removed; repeat with --yes to free {total}")
            return 0
        if input(f"remove these, and free {total}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    freed = 0
    for step in steps:
        try:
            step.do()
            freed += step.size
        except RunLockedError as error:
            print(f"skipped: {error}")
    print(f"freed {bytes_in_words(freed)}")
    return 0


def plan(infos: list[RunInfo], *, empty: bool = False, results: bool = False) -> tuple[list[Step], list[str]]:
    """What there is to remove from these runs, and what is left alone and why."""
    steps, skipped = [], []
    for info in infos:
        location = as_location(info.path)
        if info.problem is not None:
            skipped.append(f"{info.name}: left alone, {info.problem}")
        elif info.status == "training":
            skipped.append(f"{info.name}: left alone, it is being written")
        elif info.epoch_count == 0:
            if empty:
                steps.append(_whole(info, location))
            else:
                skipped.append(f"{info.name}: left alone, it has no epoch; --empty removes such runs")
        else:
            steps += _former(location / "snapshots", f"{info.name}: superseded epochs and former commits")
            if results:
                steps += _all_results(location / "results", info)
            else:
                steps += _former(location / "results", f"{info.name}: replaced results and former commits")
    return steps, skipped


def _former(location: Location, what: str) -> list[Step]:
    """Everything in a repository that its newest commit does not need."""
    if open_repository(location) is None:
        return []
    with _rehearsal(location) as copy:
        size = _drop_former(copy, rehearse=True)

    def do() -> None:
        lock = RepositoryLock(location)
        try:
            _drop_former(location, rehearse=False)
        finally:
            lock.release()

    return [Step(what, size, do)] if size else []


def _drop_former(location: Location, *, rehearse: bool) -> int:
    """Drop the history of a repository, then what nothing refers to any more; the bytes that this frees."""
    repository = open_repository(location)
    assert repository is not None
    now = datetime.now(UTC)
    with readable(location):
        repository.expire_snapshots(now)
        return repository.garbage_collect(now, dry_run=rehearse).bytes_deleted


@contextmanager
def _rehearsal(location: Location) -> Iterator[Location]:
    """A copy of a repository on which dropping its history can be tried; the large part, its chunks, is only linked."""
    folder = location.folder
    assert folder is not None
    with tempfile.TemporaryDirectory(prefix="hiddenscope-prune-") as scratch:
        for entry in folder.iterdir():
            target = Path(scratch) / entry.name
            if entry.name == "chunks":
                target.symlink_to(entry, target_is_directory=True)
            elif entry.is_dir():
                shutil.copytree(entry, target)
            else:
                shutil.copy(entry, target)
        yield as_location(scratch)


def _all_results(location: Location, info: RunInfo) -> list[Step]:
    folder = location.folder
    assert folder is not None
    if not folder.is_dir():
        return []

    def do() -> None:
        lock = RepositoryLock(location)
        try:
            shutil.rmtree(folder)
        finally:
            lock.release()

    return [Step(f"{info.name}: all results (embeddings and the like)", folder_bytes(folder), do)]


def _whole(info: RunInfo, location: Location) -> Step:
    folder = location.folder
    assert folder is not None

    def do() -> None:
        lock = RepositoryLock(location / "snapshots")
        try:
            shutil.rmtree(folder / "snapshots")
            for name in ("results", "results.lock"):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        finally:
            lock.release()
        (folder / "snapshots.lock").unlink(missing_ok=True)
        if not os.listdir(folder):
            folder.rmdir()

    return Step(f"{info.name}: the whole run, which has no epoch", folder_bytes(folder), do)
