"""Finding runs, and opening one: what `hiddenscope` knows of a log folder or an address."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiddenscope.errors import HiddenscopeError, RunFormatError, RunNotFoundError
from hiddenscope.locations import Location, as_location, has_writer, readable
from hiddenscope.reading import Run
from hiddenscope.remote import can_list, remote_candidates
from hiddenscope.selection import Selection

__all__ = ["Run", "RunInfo", "Selection", "find_runs", "open_run"]

_MOST_GLANCES = 1_000  # runs that are kept open for `find_runs`

_glances: dict[tuple[object, ...], Run] = {}
_glances_lock = threading.Lock()


@dataclass(frozen=True)
class RunInfo:
    """A run at a glance.

    Attributes:
        path: the run's own folder or address, for `open_run`.
        name: what to call it, such as ``"version_0"``.
        status: as `Run.status`; ``"unreadable"`` when ``problem`` says why.
        layers: names of the recorded layers.
        epoch_count: how many epochs are recorded; 0 while the first is awaited.
        last_epoch: the newest epoch; None while the first is awaited.
        updated_at: when the newest epoch was written, else when the run began, in seconds since 1970.
        version: as `Run.version`.
        problem: why it cannot be read, or None.
        resumed_after: as `Run.resumed_after`.
    """

    path: str
    name: str
    status: str
    layers: tuple[str, ...]
    epoch_count: int
    last_epoch: float | None
    updated_at: float
    version: str
    problem: str | None = None
    resumed_after: tuple[float, ...] = ()


def open_run(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Run:
    """The newest run at or below ``path``.

    Args:
        path: a log folder, a version folder, a run's own folder, or an address such as ``s3://bucket/prefix``
            (runs further below than in ``hiddenscope`` are found there where boto3 is installed).
        storage_options: for S3, see `hiddenscope.locations.Location`.

    Raises:
        RunNotFoundError: there is no run, or none with an epoch in it; the message says what there is.
        RunFormatError: there is one, but it cannot be read.
    """
    place = as_location(path, storage_options)
    infos = _look(place)
    recorded = [info for info in infos if info.epoch_count]
    if recorded:
        return Run(as_location(recorded[0].path, storage_options), name=recorded[0].name)
    empty = [info for info in infos if info.problem is None]
    if empty:
        age = max(0.0, time.time() - empty[0].updated_at)
        raise RunNotFoundError(
            f"the run at {empty[0].path} has no epoch yet (begun {age:.0f} s ago, {empty[0].status}); "
            "the first appears once the untrained network has been recorded"
        )
    if infos:
        raise RunFormatError(infos[0].problem or "")
    raise RunNotFoundError(_nothing_at(place))


def find_runs(
    path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None, unreadable: bool = False
) -> list[RunInfo]:
    """All runs at or below ``path``, the newest first; a folder that cannot be read never hides the others.

    Args:
        path: as for `open_run`; a path that does not exist has no runs.
        storage_options: as for `open_run`.
        unreadable: list also what looks like a run and cannot be read, last, with ``problem`` saying why.
    """
    place = as_location(path, storage_options)
    return [info for info in _look(place) if unreadable or info.problem is None]


def _look(place: Location) -> list[RunInfo]:
    """What looks like a run at or below ``place``, the newest first, what cannot be read last."""
    found = [_info(location, name) for location, name in _candidates(place)]
    return sorted(found, key=lambda info: (info.problem is None, info.updated_at), reverse=True)


def _info(location: Location, name: str) -> RunInfo:
    try:
        with readable(location):
            run = _glanced_at(location)
            epochs = run.epochs
            return RunInfo(
                path=run.path,
                name=name,
                status=run.status,
                layers=run.layers,
                epoch_count=int(epochs.size),
                last_epoch=float(epochs[-1]) if epochs.size else None,
                updated_at=run.updated_at,
                version=run.version,
                resumed_after=run.resumed_after,
            )
    except RunNotFoundError:  # its writer is about to begin it, or died just then
        status = "training" if has_writer(location / "snapshots") else "killed"
        return RunInfo(str(location), name, status, (), 0, None, _changed_at(location), "")
    except HiddenscopeError as error:
        return RunInfo(str(location), name, "unreadable", (), 0, None, _changed_at(location), "", str(error))


def _glanced_at(location: Location) -> Run:
    """The run there as of now, opened once: those who list runs do so again and again."""
    key = (str(location), tuple(sorted(location.options.items())))
    with _glances_lock:
        run = _glances.pop(key, None)
    if run is None:
        run = Run(location)
    else:
        run.refresh()
    with _glances_lock:
        _glances[key] = run  # the last to be dropped
        while len(_glances) > _MOST_GLANCES:
            _glances.pop(next(iter(_glances)))
    return run


def _changed_at(location: Location) -> float:
    """When the folder of a run that cannot be asked was last changed, in seconds since 1970; 0 when unknown."""
    folder = location.folder
    return folder.stat().st_mtime if folder is not None and folder.exists() else 0.0


def _candidates(place: Location) -> Iterator[tuple[Location, str]]:
    """Every place at or below ``place`` that looks like a run, with a name for it."""
    folder = place.folder
    if folder is None:
        yield from remote_candidates(place)
        return
    if folder.name == "snapshots" and _is_run(folder.parent):
        folder = folder.parent
    for parent, folders, _ in os.walk(folder):
        here = Path(parent)
        if _is_run(here):
            folders.clear()
            named = here.parent if here.name == "hiddenscope" else here
            inside = named != folder and folder in named.parents
            yield as_location(here), named.relative_to(folder).as_posix() if inside else named.name
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_run(folder: Path) -> bool:
    snapshots = folder / "snapshots"
    return snapshots.is_dir() and (folder.name == "hiddenscope" or (snapshots / "refs").is_dir())


def _nothing_at(place: Location) -> str:
    folder = place.folder
    advice = "train with callbacks=[hiddenscope.HiddenStateMonitor()] to record one"
    if folder is None:
        deeper = "" if place.scheme != "s3" or can_list() else " (pip install boto3 to look further below)"
        return f"no run at {place} nor at {place / 'hiddenscope'}{deeper}; {advice}"
    if not folder.exists():
        nearest = next(parent for parent in folder.parents if parent.exists())
        return f"{folder} does not exist (the path is there up to {nearest}); {advice}"
    if not folder.is_dir():
        return f"{folder} is a file; a run is a folder named hiddenscope inside a log folder"
    inside = sorted(entry.name for entry in folder.iterdir())
    listing = ", ".join(inside[:5]) + (f" and {len(inside) - 5} more" if len(inside) > 5 else "")
    return f"no run in {folder}, which holds {listing or 'nothing'}; {advice}"
