"""One recording from its first snapshot to its last: the recorder, the scalars and the writer, tied together."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hiddenscope.callbacks.background import BackgroundWriter
from hiddenscope.callbacks.host import to_host
from hiddenscope.callbacks.phase import PhaseWatch
from hiddenscope.callbacks.recorder import StateRecorder
from hiddenscope.callbacks.scalars import memberships, summarize
from hiddenscope.description import INPUTS, JSON, Snapshot
from hiddenscope.errors import RecordingWarning
from hiddenscope.store import SnapshotWriter

UNTRAINED = -1.0
"""The epoch number of the network before its first training step."""


@dataclass(frozen=True)
class Captured:
    """States and weights on their way to the writer, and the scalars that were computed from the states."""

    values: dict[str, Tensor]
    scalars: dict[str, float]
    weights: dict[str, Tensor]


class Session:
    """A run being written. ``capture`` reads the model now; ``submit`` hands what it read to the writer thread.

    Args:
        recorder: reads the states.
        location: the run's own folder or address.
        resume_after: go on with the run that is there, after this epoch; None begins a new one.
        settings: stored with the run, for the reader's eyes.
        model: what to call the model; None takes the name of its class.
        label_names: names of classes 0, 1, …, when known.
        token_names: names of tokens 0, 1, …, when the probe consists of tokens.
        dtype: ``"float32"`` or ``"float16"`` on disk.
        queue_size: snapshots that may be on their way to the disk; so many a kill can cost.
        max_wait: seconds to wait for the disk before a snapshot is given up.
        storage_options: for remote locations.

    Raises:
        RecordingError, RunLockedError: see `SnapshotWriter.open`.
    """

    def __init__(
        self,
        recorder: StateRecorder,
        location: str | os.PathLike[str],
        *,
        resume_after: float | None = None,
        settings: Mapping[str, JSON] | None = None,
        model: str | None = None,
        label_names: Sequence[str] | None = None,
        token_names: Sequence[str] | None = None,
        dtype: str = "float32",
        queue_size: int = 1,
        max_wait: float = 2.0,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.recorder = recorder
        self.location = str(location)
        description = recorder.description(
            model=model, label_names=label_names, token_names=token_names, settings=settings
        )
        for name, reason in recorder.left_out.items():
            warnings.warn(
                f'hiddenscope: the recurrent layer "{name}" is not recorded: {reason}. forward= says how the model is '
                "called, layers= which layers a recording is for",
                RecordingWarning,
                stacklevel=2,
            )
        self._classes = memberships(description.labels)
        writer = SnapshotWriter.open(
            location,
            description,
            resume_after=resume_after,
            dtype=dtype,
            storage_options=storage_options,
        )
        self.epochs = writer.epochs
        self._newest = float(writer.epochs[-1]) if writer.epochs.size else -math.inf
        self._writer = BackgroundWriter(writer, queue_size=queue_size, max_wait=max_wait)
        self._before: dict[str, Tensor] | None = None
        self._phases = PhaseWatch()
        self._flagged = False
        self._drop_flagged = False
        self._told = False  # that the disk is slow

    def capture(self, *, to_record: bool = True) -> Captured:
        """Read the model's states and compute their scalars; ``change`` is measured from the last one to record."""
        states = self.recorder.read()
        active = {layer.name: states.values[layer.name] for layer in self.recorder.layers if layer.kind != INPUTS}
        scalars = summarize(active, self._before, states.nonfinite, self._classes)
        scalars |= self._phases.after(scalars, keep=to_record)
        self._before = states.values if to_record else self._before
        self._flag(scalars, states.steps_dropped)
        return Captured(states.values, scalars, states.weights)

    def submit(self, epoch: float, captured: Captured, metrics: Mapping[str, float]) -> bool:
        """Queue a snapshot; False if it had to be given up (a warning has said so, once per outage).

        Raises:
            ValueError: ``epoch`` does not come after the last one.
            Exception: whatever has gone wrong in the writer thread, then or before.
        """
        self.check(epoch)
        states, weights, numbers = to_host(captured.values), to_host(captured.weights), dict(metrics)
        modules, late = self.recorder.weights.descriptions, dict(self._writer.amended)

        def make() -> Snapshot:
            lines = weights()
            found = {module.name: module.parted(lines[module.name]) for module in modules}
            return Snapshot(epoch, states(), numbers, found, late)

        accepted = self._writer.submit(epoch, make)
        self.raise_failure()
        if accepted:
            self._writer.amended.clear()
            self._newest = epoch
        elif not self._told:
            warnings.warn(
                f"hiddenscope: {self.location} takes too long to write, so epoch {epoch:g} is not recorded; the "
                "training goes on, and recording too, as far as the disk keeps up",
                RecordingWarning,
                stacklevel=2,
            )
        self._told = not accepted
        return accepted

    def check(self, epoch: float) -> None:
        """Raise `ValueError` unless ``epoch`` comes after all that were submitted."""
        if not math.isfinite(epoch):
            raise ValueError(f"an epoch is a finite number, got {epoch}")
        if epoch <= self._newest:
            raise ValueError(
                f"epochs must grow, got {epoch:g} after {self._newest:g}; within an epoch give a number in between, "
                f"such as {self._newest + 0.5:g}"
            )

    def amend(self, epoch: float, metrics: Mapping[str, float]) -> None:
        """Metrics of a submitted epoch that became known since; they are written along with what comes next."""
        if metrics:
            self._writer.amended.setdefault(epoch, {}).update(metrics)

    def raise_failure(self) -> None:
        """Raise what went wrong in the writer thread, if anything did."""
        if self._writer.error is not None:
            raise self._writer.error

    @property
    def written(self) -> list[float]:
        """Epochs that are committed to the run by this session."""
        return list(self._writer.written)

    def finish(self, status: str, *, timeout: float = 30.0) -> bool:
        """Write what waits and end the run as ``"finished"`` or ``"interrupted"``; False if the time was too short."""
        return self._writer.close(status, timeout=timeout)

    def first_lost(self, epoch: float | None = None) -> str:
        """What a failure costs from here on, in words: ``epoch``, or one that was on its way to a disk that failed."""
        failed = self._writer.error is not None or epoch is None
        lost = [each for each in (*(self._writer.unwritten if failed else ()), epoch) if each is not None]
        return epoch_in_words(min(lost)) if lost else "the end of the run"

    def _flag(self, scalars: Mapping[str, float], dropped: Mapping[str, int]) -> None:
        bad = [name.removesuffix("/nonfinite") for name, n in scalars.items() if name.endswith("/nonfinite") and n > 0]
        if bad and not self._flagged:
            self._flagged = True
            warnings.warn(
                f"hiddenscope: hidden states of {', '.join(bad)} are NaN or infinite; they are recorded as they are, "
                "and counted in the metrics */nonfinite",
                RecordingWarning,
                stacklevel=3,
            )
        if dropped and not self._drop_flagged:
            self._drop_flagged = True
            layer, count = next(iter(dropped.items()))
            warnings.warn(
                f'hiddenscope: layer "{layer}" now runs {count} steps longer than at the beginning; steps beyond the '
                "first length are not recorded. loop_steps= makes room for them",
                RecordingWarning,
                stacklevel=3,
            )


def epoch_in_words(epoch: float) -> str:
    """
    >>> epoch_in_words(-1), epoch_in_words(3.5)
    ('the untrained network', 'epoch 3.5')
    """
    return "the untrained network" if epoch == UNTRAINED else f"epoch {epoch:g}"


def warn_of_failure(error: BaseException, location: str, *, first_lost: str) -> None:
    """One warning that says what happened and what is lost."""
    warnings.warn(
        f"hiddenscope stopped recording into {location}: {type(error).__name__}: {str(error).strip()[:300]}. "
        f"The training goes on; {first_lost} and what follows is not recorded. What was recorded before stays "
        "readable; strict=True raises instead",
        RecordingWarning,
        stacklevel=3,
    )
