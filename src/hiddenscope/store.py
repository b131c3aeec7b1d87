"""The run store: one commit per epoch, whole or not at all.

A run is the folder ``<log folder>/hiddenscope`` (or an S3 address) with two Icechunk repositories: ``snapshots``, that
the training writes through `SnapshotWriter`, and ``results``, that whoever computes something from them writes through
`ResultStore`. Each has one writer; readers (`hiddenscope.run.Run`) see whole commits and never block it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from hiddenscope._version import __version__
from hiddenscope.allocator import give_back_memory
from hiddenscope.description import (
    Amendments,
    LayerDescription,
    ModuleDescription,
    RunDescription,
    Snapshot,
    differences,
)
from hiddenscope.errors import RecordingError
from hiddenscope.layout import (
    DTYPES,
    STATUSES,
    array,
    check_format,
    layer_path,
    module_path,
    read_description,
    read_modules,
    values,
    write_description,
)
from hiddenscope.locations import (
    BRANCH,
    Location,
    RepositoryLock,
    as_location,
    commit,
    continued,
    create_repository,
    open_repository,
    readable,
    writing,
)
from hiddenscope.pages import Pages, set_entries
from hiddenscope.results import ResultKey, ResultStore

__all__ = [
    "LayerDescription",
    "ModuleDescription",
    "ResultKey",
    "ResultStore",
    "RunDescription",
    "Snapshot",
    "SnapshotWriter",
]


_TIDY = 128  # commits after which memory that is free is given back


@dataclass(frozen=True)
class _Tables:
    """What the newest commit holds beside the states, one row per epoch."""

    epochs: npt.NDArray[np.float64]
    written_at: npt.NDArray[np.float64]
    names: tuple[str, ...]
    metrics: npt.NDArray[np.float64]  # (epoch, name)

    def then(self, epoch: float, metrics: Mapping[str, float]) -> _Tables:
        """These rows and one more; a metric that is new is NaN before."""
        wider = self._with_names(metrics)
        return _Tables(
            np.append(self.epochs, float(epoch)),
            np.append(self.written_at, time.time()),
            wider.names,
            np.vstack([wider.metrics, [[metrics.get(name, math.nan) for name in wider.names]]]),
        )

    def first(self, count: int) -> _Tables:
        """The first ``count`` rows."""
        return _Tables(self.epochs[:count], self.written_at[:count], self.names, self.metrics[:count])

    def amended(self, amendments: Amendments) -> tuple[_Tables, int]:
        """These rows with some metrics changed, and the first row that is; epochs that are not there are left out."""
        there = {epoch: metrics for epoch, metrics in amendments.items() if metrics and epoch in self.epochs}
        tables = self._with_names([name for metrics in there.values() for name in metrics])
        rows = [int(np.searchsorted(self.epochs, epoch)) for epoch in there]
        for row, metrics in zip(rows, there.values(), strict=True):
            for name, value in metrics.items():
                tables.metrics[row, tables.names.index(name)] = value
        return tables, min(rows, default=self.epochs.size)

    def _with_names(self, wanted: Iterable[str]) -> _Tables:
        """A copy that has columns for these metrics."""
        names = self.names + tuple(sorted(set(wanted) - set(self.names)))
        table = np.full((self.epochs.size, len(names)), np.nan)
        table[:, : len(self.names)] = self.metrics
        return _Tables(self.epochs, self.written_at, names, table)


class SnapshotWriter:
    """The single writer of a run; made by `open`, ended by `finish` or by the end of its ``with`` block.

    Any thread may call it, one at a time.
    """

    def __init__(
        self,
        location: Location,
        description: RunDescription,
        repository: icechunk.Repository,
        lock: RepositoryLock,
        *,
        keep_to: float,
    ) -> None:
        """Use `open`."""
        session = repository.readonly_session(BRANCH)
        root = zarr.open_group(session.store, mode="r", zarr_format=3)
        self.location = location
        self.description = description
        self._repository = repository
        self._lock: RepositoryLock | None = lock
        self._version = session.snapshot_id  # what the next commit goes on from
        self._status = str(root.attrs["status"])
        self._dtype = np.dtype(str(root.attrs["states_dtype"]))
        self._tables = _Tables(
            values(root, "epoch"),
            values(root, "written_at"),
            tuple(values(root, "metric").tolist()),
            values(root, "metrics"),
        )
        self._keep = int(np.searchsorted(self._tables.epochs, keep_to, side="right"))  # rows that stay
        self._resumed = bool(self._keep)  # until the first epoch is written, which says so
        self._states = {layer.name: Pages(root, f"{layer_path(layer.name)}/states") for layer in description.layers}
        self._modules = read_modules(root)
        self._weights = {module.name: Pages(root, f"{module_path(module.name)}/weights") for module in self._modules}
        self._lines = {name: Pages(root, name) for name in ("epoch", "written_at", "metrics")}

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        description: RunDescription,
        *,
        resume_after: float | None = None,
        dtype: str = "float32",
        storage_options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Begin a run, or go on with one.

        Args:
            location: the run's own folder, ``<log folder>/hiddenscope``, or an ``s3://bucket/prefix``.
            description: what will be recorded.
            resume_after: go on with the run that is there, if any, after this epoch. Later epochs are superseded in
                the same commit that writes the next one, and stay as they are if none is written.
            dtype: ``"float32"``, or ``"float16"`` to halve the space.
            storage_options: for S3, see `hiddenscope.locations.Location`.

        Raises:
            RunLockedError: another process writes to this run.
            RecordingError: there is a run already and ``resume_after`` is None, or the run that is there was recorded
                with another model or probe.
            RunFormatError: the run that is there cannot be read.
        """
        if dtype not in DTYPES:
            raise ValueError(f"states are stored as {' or '.join(map(repr, DTYPES))}, got {dtype!r}")
        if resume_after is not None and math.isnan(resume_after):
            raise ValueError("resume_after must be an epoch, got NaN")
        place = as_location(location, storage_options)
        lock = RepositoryLock(place / "snapshots")
        try:
            repository = open_repository(place / "snapshots") or create_repository(place / "snapshots")
            with readable(place):
                session = repository.writable_session(BRANCH)
                root = zarr.open_group(session.store, mode="a", zarr_format=3)
                begun = "hiddenscope_format" in root.attrs
                if begun or any(True for _ in root):
                    check_format(root.attrs.asdict(), place)
                recorded = values(root, "epoch").size if begun else 0
            if recorded and resume_after is None:
                raise RecordingError(
                    f"{place} already holds a run ({recorded} records); choose another folder, or go on with it: "
                    "a Trainer from one of its checkpoints, record() with resume_after="
                )
            if recorded:
                with readable(place):
                    before, stored_dtype = read_description(root), root.attrs["states_dtype"]
                changed = differences(before, description)
                if stored_dtype != dtype:
                    changed.append(f"its states are {stored_dtype}, not {dtype}")
                if changed:
                    raise RecordingError(f"{place} holds another run: {'; '.join(changed)}. Choose another folder")
            else:  # nothing was recorded here yet, so there is nothing to lose
                for name in list(root):
                    del root[name]
                write_description(root, description, dtype=dtype)
                commit(session, "begin", lock=lock, where=place)
            with readable(place):
                keep_to = -math.inf if resume_after is None else resume_after
                return cls(place, description, repository, lock, keep_to=keep_to)
        except BaseException:
            lock.release()
            raise

    @property
    def epochs(self) -> npt.NDArray[np.float64]:
        """The epochs of the run as this writer goes on with it; superseded ones are left out."""
        return self._tables.epochs[: self._keep].copy()

    def append(self, snapshot: Snapshot) -> None:
        """Write one epoch: all layers, parameters and metrics, in one commit. Nothing is kept of the caller's arrays.

        After an error the run is as it was before, and the next epoch can be tried. Parameters of modules that the run
        does not have are left out: a run that began without them goes on without them.

        Raises:
            ValueError: a layer is missing, unknown or of another shape, a module has other parameters, or the epoch
                does not come after the last.
            RunLockedError: another writer got in between (on S3, where there are no locks).
            OSError: the disk is full, read-only or gone.
        """
        if self._lock is None:
            raise ValueError(f"the writer of {self.location} is finished; open another one to go on")
        states, weights = self._checked(snapshot), self._checked_weights(snapshot)
        row, count = self._keep, self._keep + 1
        before, changed = self._tables.first(row).amended(snapshot.amended)
        tables = before.then(snapshot.epoch, snapshot.metrics)
        entries = self._entries_of(tables, min(row, changed))
        for name, block in states.items():
            entries |= self._states[name].entries(block[None], row, length=count)
        for name, parameters in weights.items():
            entries |= self._weights[name].entries(parameters[None], row, length=count)
        with writing(self.location):
            session = continued(self._repository, self._version, lock=self._lock, where=self.location)
            self._prepare(session, tables.names)
            set_entries(session, entries)
            self._version = commit(session, f"epoch {snapshot.epoch:g}", lock=self._lock, where=self.location)
        self._tables, self._keep, self._status, self._resumed = tables, count, "training", False
        if count % _TIDY == 0:
            give_back_memory()

    def _entries_of(self, tables: _Tables, row: int) -> dict[str, bytes]:
        """What makes the stored tables equal to ``tables``, which differ from them from ``row`` on."""
        lines = {"epoch": tables.epochs, "written_at": tables.written_at, "metrics": tables.metrics}
        entries: dict[str, bytes] = {}
        for name, line in lines.items():
            first = self._lines[name].tail(row)
            entries |= self._lines[name].entries(line[first:], first, length=len(line))
        return entries

    def _prepare(self, session: icechunk.Session, names: tuple[str, ...]) -> None:
        """Whatever is not the same at every epoch: superseded epochs, new metrics, another status, that it goes on."""
        superseded = self._tables.epochs.size > self._keep
        if not superseded and names == self._tables.names and self._status == "training" and not self._resumed:
            return
        root = zarr.open_group(session.store, mode="r+", zarr_format=3)
        if superseded:
            for pages in (*self._states.values(), *self._weights.values(), *self._lines.values()):
                stored = array(root, pages.path)
                stored.resize((self._keep, *stored.shape[1:]))
        self._rename(root, names)
        if self._resumed:
            earlier = root.attrs.get("resumed_after", [])
            went_on = [*(earlier if isinstance(earlier, list) else []), float(self._tables.epochs[self._keep - 1])]
            root.update_attributes({"resumed_after": went_on})
        if self._status != "training":
            root.update_attributes({"status": "training", "hiddenscope_version": __version__})

    def _rename(self, root: zarr.Group, names: tuple[str, ...]) -> None:
        if names != self._tables.names:
            stored = array(root, "metric")
            stored.resize((len(names),))
            stored[...] = np.array(names, dtype=object)

    def finish(self, status: str = "finished", *, amended: Amendments | None = None) -> None:
        """Say how the training ended, ``"finished"`` or ``"interrupted"``, and let go; again, it does nothing.

        ``amended`` has metrics that became known after their epoch was written, as in `Snapshot`.
        """
        if status not in STATUSES[1:]:
            raise ValueError(f"a training ends {' or '.join(map(repr, STATUSES[1:]))}, got {status!r}")
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            superseded = self._tables.epochs.size > self._keep  # then nothing was written since, and all stays
            tables, row = self._tables.amended({} if superseded else amended or {})
            if status != self._status or row < self._keep:
                with writing(self.location):
                    session = continued(self._repository, self._version, lock=lock, where=self.location)
                    root = zarr.open_group(session.store, mode="r+", zarr_format=3)
                    if row < self._keep:
                        self._rename(root, tables.names)
                        set_entries(session, self._entries_of(tables, row))
                    root.update_attributes({"status": status})
                    self._version = commit(session, status, lock=lock, where=self.location)
                self._tables, self._status = tables, status
        finally:
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish("finished" if kind is None else "interrupted")

    def _checked(self, snapshot: Snapshot) -> dict[str, npt.NDArray[Any]]:
        if not math.isfinite(snapshot.epoch):
            raise ValueError(f"an epoch is a finite number, got {snapshot.epoch}")
        if self._keep and snapshot.epoch <= self._tables.epochs[self._keep - 1]:
            raise ValueError(f"epochs must grow: got {snapshot.epoch:g} after {self._tables.epochs[self._keep - 1]:g}")
        want, got = {layer.name for layer in self.description.layers}, set(snapshot.states)
        if want != got:
            raise ValueError(f"a snapshot needs the states of layers {sorted(want)}, got {sorted(got)}")
        states = {}
        for layer in self.description.layers:
            found = np.asarray(snapshot.states[layer.name])
            shape = (layer.steps.size, layer.units.size, self.description.samples.size)
            if found.shape != shape:
                raise ValueError(
                    f"states of layer {layer.name!r} need (step, unit, sample) = {shape}, got {found.shape}"
                )
            with np.errstate(over="ignore"):  # beyond the range of float16 lies infinity
                states[layer.name] = found.astype(self._dtype, copy=False)
        return states

    def _checked_weights(self, snapshot: Snapshot) -> dict[str, npt.NDArray[Any]]:
        """One line of parameters per module of the run; NaN where the snapshot has none."""
        return {
            module.name: module.joined(snapshot.weights[module.name])
            if module.name in snapshot.weights
            else np.full(module.size, np.nan, dtype=module.dtype)
            for module in self._modules
        }
