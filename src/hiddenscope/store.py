"""The run store: one commit per epoch, whole or not at all.

A run is the folder ``<log folder>/hiddenscope`` (or an S3 address) with two Icechunk repositories: ``snapshots``, that
the training writes through `SnapshotWriter`, and ``results``, that whoever computes something from them writes through
`ResultStore`. Each has one writer; readers (`hiddenscope.run.Run`) see whole commits and never block it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import icechunk
import numpy as np
import numpy.typing as npt
import zarr

from hiddenscope.description import LayerDescription, RunDescription, Snapshot, differences
from hiddenscope.errors import RecordingError, RunFormatError
from hiddenscope.layout import (
    DTYPES,
    STATUSES,
    array,
    check_format,
    format_attributes,
    layer_path,
    read_description,
    values,
    write_description,
)
from hiddenscope.locations import (
    BRANCH,
    Location,
    RepositoryLock,
    as_location,
    commit,
    create_repository,
    open_repository,
    unreadable,
)
from hiddenscope.results import ResultKey, ResultStore

__all__ = ["LayerDescription", "ResultKey", "ResultStore", "RunDescription", "Snapshot", "SnapshotWriter"]


class SnapshotWriter:
    """The single writer of a run; made by `open`, ended by `finish` or the end of its ``with`` block.

    Not safe to be called from two threads at once; any one thread at a time may call it.
    """

    def __init__(
        self,
        location: Location,
        description: RunDescription,
        repository: icechunk.Repository,
        lock: RepositoryLock,
        *,
        dtype: str,
        keep: int,
        epochs: npt.NDArray[np.float64],
        metrics: tuple[str, ...],
        status: str,
    ) -> None:
        self.location = location
        self.description = description
        self._repository = repository
        self._lock: RepositoryLock | None = lock
        self._dtype = np.dtype(dtype)
        self._stored = epochs  # what the newest commit holds
        self._keep = keep  # how many of these stay when the next epoch is written
        self._metrics = metrics
        self._status = status

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
        snapshots = place / "snapshots"
        lock = RepositoryLock(snapshots)
        try:
            repository = open_repository(snapshots)
            if repository is None:
                repository = create_repository(snapshots)
            session = repository.writable_session(BRANCH)
            try:
                root = zarr.open_group(session.store, mode="a", zarr_format=3)
                blank = "hiddenscope_format" not in root.attrs and not any(True for _ in root)
                if not blank:
                    check_format(root.attrs.asdict(), place)
                    epochs = values(root, "epoch")
            except RunFormatError:
                raise
            except BaseException as error:
                raise unreadable(place, error) from error
            if blank or (epochs.size == 0 and resume_after is None):
                # Nothing was recorded here yet, so there is nothing to lose.
                for name in list(root.keys()):
                    del root[name]
                write_description(root, description, dtype=dtype)
                commit(session, "begin", where=place)
                return cls(
                    place,
                    description,
                    repository,
                    lock,
                    dtype=dtype,
                    keep=0,
                    epochs=np.zeros(0),
                    metrics=(),
                    status="training",
                )
            if resume_after is None:
                raise RecordingError(
                    f"{place} already holds a run of {epochs.size} epochs; "
                    "choose another folder, or resume from one of its checkpoints"
                )
            changed = differences(read_description(root), description)
            if root.attrs["states_dtype"] != dtype:
                changed.append(f"its states are {root.attrs['states_dtype']}, not {dtype}")
            if changed:
                raise RecordingError(f"{place} holds another run: {'; '.join(changed)}. Choose another folder")
            return cls(
                place,
                description,
                repository,
                lock,
                dtype=dtype,
                keep=int(np.searchsorted(epochs, resume_after, side="right")),
                epochs=epochs,
                metrics=tuple(values(root, "metric").tolist()),
                status=str(root.attrs["status"]),
            )
        except BaseException:
            lock.release()
            raise

    @property
    def epochs(self) -> npt.NDArray[np.float64]:
        """The epochs of the run as this writer goes on with it; superseded ones are left out."""
        return self._stored[: self._keep].copy()

    def append(self, snapshot: Snapshot) -> None:
        """Write one epoch: all layers and metrics, in one commit. Nothing is kept of the caller's arrays.

        Raises:
            ValueError: a layer is missing, unknown or of another shape, or the epoch does not come after the last.
            RunLockedError: another writer got in between (on S3, where there are no locks).
        """
        if self._lock is None:
            raise ValueError(f"the writer of {self.location} is finished; open another one to go on")
        states = self._checked(snapshot)
        names = self._metrics + tuple(sorted(set(snapshot.metrics) - set(self._metrics)))
        row, count = self._keep, self._keep + 1
        session = self._repository.writable_session(BRANCH)
        root = zarr.open_group(session.store, mode="r+", zarr_format=3)
        for name, values_ in states.items():
            target = array(root, f"{layer_path(name)}/states")
            target.resize((count, *values_.shape))
            target[row] = values_
        for name, value in (("epoch", float(snapshot.epoch)), ("written_at", time.time())):
            target = array(root, name)
            target.resize((count,))
            target[row] = value
        if names != self._metrics:
            target = array(root, "metric")
            target.resize((len(names),))
            target[len(self._metrics) :] = np.array(names[len(self._metrics) :], dtype=object)
        target = array(root, "metrics")
        target.resize((count, len(names)))
        if names:
            target[row] = np.array([snapshot.metrics.get(name, math.nan) for name in names], dtype=np.float64)
        if self._status != "training":
            root.update_attributes(
                {"status": "training", "hiddenscope_version": format_attributes()["hiddenscope_version"]}
            )
        commit(session, f"epoch {snapshot.epoch:g}", where=self.location)
        self._stored = np.append(self._stored[:row], float(snapshot.epoch))
        self._keep, self._metrics, self._status = count, names, "training"

    def finish(self, status: str = "finished") -> None:
        """Say how the training ended, ``"finished"`` or ``"interrupted"``, and let go; again, it does nothing."""
        if status not in STATUSES[1:]:
            raise ValueError(f"a training ends {' or '.join(map(repr, STATUSES[1:]))}, got {status!r}")
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            if status != self._status:
                session = self._repository.writable_session(BRANCH)
                zarr.open_group(session.store, mode="r+", zarr_format=3).update_attributes({"status": status})
                commit(session, status, where=self.location)
                self._status = status
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
        if self._keep and snapshot.epoch <= self._stored[self._keep - 1]:
            raise ValueError(f"epochs must grow: got {snapshot.epoch:g} after {self._stored[self._keep - 1]:g}")
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
            states[layer.name] = found.astype(self._dtype, copy=False)
        return states
