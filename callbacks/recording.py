"""The plain-PyTorch door: ``with record(...)`` around a loop of one's own, no Lightning needed."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hiddenscope.callbacks.budget import Budget
from hiddenscope.callbacks.folders import run_location
from hiddenscope.callbacks.layers import Layers
from hiddenscope.callbacks.probe import as_probe, check_label_names
from hiddenscope.callbacks.recorder import Extract, Forward, StateRecorder
from hiddenscope.callbacks.session import UNTRAINED, Session, epoch_in_words, warn_of_failure
from hiddenscope.errors import HiddenscopeError, RecordingWarning


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

    >>> import tempfile, torch
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
