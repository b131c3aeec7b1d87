"""One recording from its first snapshot to its last: the recorder, the scalars and the writer, tied together.

The plain-PyTorch door is `record`; the Lightning callback goes through the same `Session`.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hiddenscope.callbacks.background import BackgroundWriter
from hiddenscope.callbacks.budget import Budget
from hiddenscope.callbacks.folders import run_location
from hiddenscope.callbacks.layers import Layers
from hiddenscope.callbacks.phase import PhaseWatch
from hiddenscope.callbacks.probe import as_probe, check_label_names
from hiddenscope.callbacks.recorder import Extract, Forward, StateRecorder
from hiddenscope.callbacks.scalars import memberships, summarize
from hiddenscope.description import INPUTS, JSON, Snapshot
from hiddenscope.errors import HiddenscopeError, RecordingWarning
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
    def given_up(self) -> list[float]:
        """Epochs that were not recorded."""
        return list(self._writer.given_up)

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


def to_host(values: Mapping[str, Tensor]) -> Callable[[], dict[str, npt.NDArray[np.floating[Any]]]]:
    """Start copying tensors to the host; the function returned waits for the copies and gives them as arrays.

    From a GPU the copies go to pinned memory behind the work that is already queued, so neither the stream nor the
    training waits for them; the writer thread does, asleep.
    """
    devices = {tensor.device for tensor in values.values() if tensor.is_cuda}
    if not devices:
        arrays = {name: tensor.cpu().numpy() for name, tensor in values.items()}
        return lambda: arrays
    pinned = {name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for name, tensor in values.items()}
    for name, tensor in values.items():
        pinned[name].copy_(tensor, non_blocking=True)
    made = [_mark(device) for device in devices]
    sources = dict(values)  # alive until the copies are made

    def wait() -> dict[str, npt.NDArray[np.floating[Any]]]:
        for copies in made:
            copies.synchronize()
        sources.clear()
        return {name: tensor.numpy() for name, tensor in pinned.items()}

    return wait


def _mark(device: torch.device) -> torch.cuda.Event:
    """An event behind all that is queued on a GPU so far; to wait for it takes no processor."""
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


class Recording:
    """What ``with record(...)`` gives: call `snapshot` after every epoch."""

    def __init__(self, recorder: StateRecorder, location: str, *, strict: bool) -> None:
        self.location = location
        self._recorder = recorder
        self._strict = strict
        self._session: Session | None = None
        self._failed = self._over = False

    def snapshot(self, epoch: float, **metrics: Any) -> dict[str, float]:
        """Record the model as it is now.

        What does not make sense, such as an epoch that does not come after the last one, is left out with a warning;
        so is everything after a failure.

        Args:
            epoch: the number of the epoch that has just ended; -1 for the untrained network, 3.5 for halfway from
                the end of epoch 3 to that of epoch 4.
            metrics: numbers to store with it, such as ``loss=0.3``; anything ``float`` takes.

        Returns:
            The layers' scalars (``"lstm/change"`` and so on), for early stopping or a log. Empty where nothing was
            recorded.

        Raises:
            Exception: with ``strict=True``, ``ValueError`` for what does not make sense, and whatever fails.
        """
        session = self._session
        if self._failed:
            return {}
        try:
            if session is None or self._over:
                raise ValueError(
                    f"the recording into {self.location} has ended; call snapshot inside of its with block"
                )
            session.check(epoch)
            numbers = {name: _number(name, value) for name, value in metrics.items()}
        except ValueError as error:
            if self._strict:
                raise
            warnings.warn(f"hiddenscope: this snapshot is left out: {error}", RecordingWarning, stacklevel=2)
            return {}
        try:
            captured = session.capture()
            session.submit(epoch, captured, numbers)
        except Exception as error:
            self._fail(error, session.first_lost(epoch))
            return {}
        return captured.scalars

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the recorded layers."""
        return tuple(layer.name for layer in self._recorder.layers)

    def _begin(self, open_session: Callable[[], Session]) -> None:
        try:
            self._session = open_session()
        except (HiddenscopeError, ValueError):
            raise  # wrong use
        except Exception as error:
            self._fail(error, epoch_in_words(UNTRAINED))

    def _end(self, status: str) -> None:
        self._over = True
        if self._session is None:
            return
        ended = self._session.finish("interrupted" if self._failed else status)
        if self._failed or status != "finished":
            return
        try:
            self._session.raise_failure()
            if not ended:
                raise TimeoutError("the disk does not answer")
        except Exception as error:
            self._fail(error, self._session.first_lost())

    def _fail(self, error: Exception, lost: str) -> None:
        if self._strict:
            raise error
        self._failed = True
        warn_of_failure(error, self.location, first_lost=lost)


def _number(name: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"the metric {name!r} must be a number, got {value!s:.50}") from None


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


@contextlib.contextmanager
def record(
    model: nn.Module,
    probe: Any,
    logdir: str | os.PathLike[str],
    *,
    layers: Layers | None = None,
    record: Sequence[str] = ("h",),
    extract: Extract | None = None,
    forward: Forward | None = None,
    label_names: Sequence[str] | None = None,
    token_names: Sequence[str] | None = None,
    resume_after: float | None = None,
    max_samples: int = 128,
    max_units: int = 512,
    max_steps: int = 512,
    max_mb: float = 16.0,
    max_weights_mb: float = 4.0,
    loop_steps: int | None = None,
    dtype: str = "float32",
    seed: int = 0,
    strict: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Recording]:
    """Record a model's hidden states without Lightning.

    Args:
        model: any module; it is left exactly as it was after every snapshot.
        probe: a batch, dataloader or data set, or a function that returns one; see `as_probe`.
        logdir: the run goes to ``logdir/hiddenscope``; an ``s3://`` address works too.
        layers: which layers, see `find_sources`; None for every recurrent one.
        record: ``"h"`` for hidden states, ``"c"`` for cell states of LSTMs, ``"gates"``, ``"inputs"`` for what goes in.
        extract: for what hooks cannot read, see `Extract`.
        forward: how to call the model with a batch; None finds out.
        label_names: names of classes 0, 1, …, when known.
        token_names: names of tokens 0, 1, …, when the probe consists of tokens.
        resume_after: go on with the run in ``logdir``, after this epoch; later ones are superseded.
        max_samples: most sequences drawn from a dataloader.
        max_units: most units of a layer, see `Budget`.
        max_steps: most steps of a layer.
        max_mb: most megabytes of states per epoch.
        max_weights_mb: most megabytes of the modules' parameters per epoch; what does not fit is left out. 0 for none.
        loop_steps: steps to make room for in cell loops that may grow longer.
        dtype: ``"float32"`` or ``"float16"`` on disk.
        seed: of all choices made here.
        strict: raise when recording fails, instead of warning once and going on without it.
        storage_options: for remote locations.

    Raises:
        RecordingError: the model cannot be recorded in this way, or ``logdir`` holds another run.

    >>> import tempfile
    >>> network, sequences = nn.LSTM(2, 3, batch_first=True), torch.zeros(5, 7, 2)
    >>> with tempfile.TemporaryDirectory() as folder, record(network, sequences, folder) as recorder:
    ...     sorted(recorder.snapshot(-1))
    ['lstm/dispersion', 'lstm/entropy', 'lstm/nonfinite', 'lstm/phase', 'phase']
    """
    recorder = StateRecorder(
        model,
        as_probe(probe, max_samples=max_samples, seed=seed),
        layers=layers,
        record=record,
        extract=extract,
        forward=forward,
        budget=Budget(max_units, max_steps, max_mb, max_weights_mb),
        seed=seed,
        loop_steps=loop_steps,
    )
    check_label_names(recorder.probe, label_names)
    recording = Recording(recorder, run_location(logdir), strict=strict)
    recording._begin(
        lambda: Session(
            recorder,
            recording.location,
            resume_after=resume_after,
            label_names=label_names,
            token_names=token_names,
            dtype=dtype,
            storage_options=storage_options,
        )
    )
    try:
        yield recording
    except BaseException:
        recording._end("interrupted")
        raise
    recording._end("finished")
