"""The entropies as scalars of TensorBoard: they stand in Time Series beside the loss, at the same steps.

They go into an event file of their own, in the run's own folder, ``<log folder>/hiddenscope``: TensorBoard shows it as
a run beside the user's, whose event files are never touched.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.description import STEP
from hiddenscope.run import Run

ENTROPIES = ("intra_step_entropy", "inter_step_entropy")
"""Drawn in nats as means over the steps, or the units."""
_Point = tuple[int, float, float]  # step, wall time, value


class EntropyLog:
    """Writes the entropies of one run's layers, as they are computed, into one event file.

    Epochs are appended. When former epochs have changed, because the picture was made anew, TensorBoard is told to
    forget the run so far, and all of it is written again.

    Args:
        folder: the run's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._written: dict[str, list[_Point]] = {}

    def write(self, run: Run, layer: str, result: xr.Dataset) -> None:
        """Add what is new in the picture of a layer.

        Args:
            run: the run, which knows at which step and time each epoch was logged.
            layer: the layer.
            result: with variables ``intra_step_entropy`` (epoch, step) and ``inter_step_entropy`` (epoch, unit).

        Raises:
            OSError: the disk is full, read-only or gone.
        """
        new = {f"hiddenscope/{layer}/{name}": points for name, points in series(run, result).items()}
        if self._file is None or any(self._has_changed(tag, points) for tag, points in new.items()):
            self._written |= new
            self._write(_forget(min((points[0][0] for points in self._written.values() if points), default=0)))
            for tag, points in self._written.items():
                self._write(*(_scalar(tag, point) for point in points))
        else:
            for tag, points in new.items():
                known = len(self._written.get(tag, []))
                self._write(*(_scalar(tag, point) for point in points[known:]))
            self._written |= new
        assert self._file is not None
        self._file.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _has_changed(self, tag: str, points: list[_Point]) -> bool:
        """Whether epochs that are written already have another value, or are gone."""
        known = self._written.get(tag, [])
        if len(points) < len(known):
            return True
        now, then = (np.array([[step, value] for step, _, value in each]) for each in (points[: len(known)], known))
        return not np.allclose(now, then, rtol=0.02, atol=0.02, equal_nan=True) if known else False

    def _write(self, *events: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.hiddenscope"
            self._file = (self._folder / name).open("ab")
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        writer = RecordWriter(self._file)
        for event in events:
            writer.write(event.SerializeToString())


def series(run: Run, result: xr.Dataset) -> dict[str, list[_Point]]:
    """Each entropy as points (step, seconds since 1970, nats), one per epoch that the picture covers."""
    steps, written_at = (
        dict(zip(run.epochs, logged_steps(run), strict=True)),
        dict(zip(run.epochs, run.written_at, strict=True)),
    )
    found = {}
    for name in ENTROPIES:
        values = result[name]
        means = values.mean([dim for dim in values.dims if dim != "epoch"])
        found[name] = [
            (int(steps[epoch]), float(written_at[epoch]), float(value))
            for epoch, value in zip(means["epoch"].values, means.values, strict=True)
            if epoch in steps
        ]
    return found


def logged_steps(run: Run) -> npt.NDArray[np.int64]:
    """The step at which the run's loggers drew each epoch; shape (epoch,).

    Where that was not recorded it is the epoch itself, or its position where epochs have fractions.
    """
    table, epochs = run.metrics(), run.epochs
    if STEP in table:
        steps = table[STEP].to_numpy()
        if np.isfinite(steps).all() and (np.diff(steps) >= 0).all():
            return steps.astype(np.int64)
    whole = np.array_equal(epochs, np.round(epochs)) and (epochs >= -1).all()
    return epochs.astype(np.int64) + int(epochs[:1].sum() < 0) if whole else np.arange(len(epochs))


def _scalar(tag: str, point: _Point) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    step, wall_time, value = point
    return Event(wall_time=wall_time, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def _forget(step: int) -> Any:
    """What makes TensorBoard drop what it has read of this run from ``step`` on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    return Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
