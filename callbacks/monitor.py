"""The Lightning callback: when states are recorded, and where they go. How they are read is the recorder's business."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

import pytorch_lightning as pl
from torch import nn

from hiddenscope.callbacks.background import check_queue
from hiddenscope.callbacks.budget import Budget
from hiddenscope.callbacks.folders import RUN_FOLDER, name_of_run, numbered, run_location
from hiddenscope.callbacks.headline import headline
from hiddenscope.callbacks.identity import identity
from hiddenscope.callbacks.layers import check_record, find_sources
from hiddenscope.callbacks.outbox import Outbox, Record
from hiddenscope.callbacks.page import PageProcess, start_page, watched
from hiddenscope.callbacks.probe import as_probe, check_label_names
from hiddenscope.callbacks.recorder import Extract, Forward, StateRecorder
from hiddenscope.callbacks.scalars import check_wanted
from hiddenscope.callbacks.schedules import parse_schedule
from hiddenscope.callbacks.session import UNTRAINED, Session, epoch_in_words, warn_of_failure
from hiddenscope.callbacks.trainers import (
    all_callbacks,
    batches_per_epoch,
    builds_layers_late,
    changes_batches,
    data_for_probe,
    is_dry_run,
    log_folder,
    logged_step,
    metrics_of,
    metrics_wanted,
    names_of_classes,
    position,
    position_at_end,
    refuse_sharded_models,
)
from hiddenscope.description import INPUTS
from hiddenscope.errors import HiddenscopeError, RecordingError, RecordingWarning, RunFormatError
from hiddenscope.layout import DTYPES
from hiddenscope.locations import as_location

CLOSING_PATIENCE = 30.0
"""Seconds that the end of a training waits for the disk at most."""


class _Precision(TypedDict, total=False):
    """How the trainer runs the model: under autocast, on batches that are cast."""

    around: Callable[[], contextlib.AbstractContextManager[Any]]
    prepare: Callable[[Any], Any]


class HiddenStateMonitor(pl.Callback):
    """Records the hidden states of a network after every epoch of its training, for `hiddenscope` to show.

    The training is left exactly as it would be without: the same weights, losses and random numbers. A failure in here
    warns once and turns the monitor off.

    Args:
        probe: the sequences whose states are recorded: a batch as the dataloader gives it, a dataloader or data set, a
            function that returns one of these, or the name of a method of the datamodule or module that does. None
            takes ``probe_dataloader`` where there is such a method, else samples the validation data, else the
            training data, seeded and balanced over the classes.
        layers: names, patterns (``"blocks.*"``), or a function of a name and its module; None takes every recurrent
            layer.
        every: ``1``, ``"5 epochs"``, ``"200 steps"``, ``"log"``, a list of epochs, or a function of the epoch; see
            `parse_schedule`. The untrained network is always recorded, as epoch -1; a record within epoch ``e`` gets
            a number between ``e - 1`` and ``e``.
        dashboard: True serves the live page while the training runs, ``"stay"`` leaves it there afterwards.
        record: ``"h"`` for hidden states, ``"c"`` for cell states of LSTMs, ``"gates"``, ``"inputs"`` for what goes in.
        extract: for layers that hooks cannot read: a function of model and batch that returns named tensors (sample,
            step, unit), or by the name of a module a function from its output to such a tensor.
        forward: how the model is called with a probe batch; None finds out from its signature.
        label_names: names of classes 0, 1, …; None looks for ``label_names`` or ``classes`` at the datamodule, the
            module, or the data set of the probe.
        token_names: names of tokens 0, 1, …, when the probe consists of tokens.
        logdir: folder or address for the run; None takes the logger's. The run goes into ``hiddenscope`` below it.
        max_samples: most sequences drawn from a dataloader.
        max_units: most units of a layer; of a larger one a seeded choice is recorded.
        max_steps: most steps of a layer; of a longer one evenly spaced steps are recorded.
        max_mb: most megabytes of all layers together, per epoch; units and steps are thinned until they fit.
        max_weights_mb: most megabytes of the parameters of the recorded layers' modules, per epoch; modules that do not
            fit are left out. 0 records none.
        loop_steps: steps to make room for in cell loops that may run longer once the model is trained.
        dtype: ``"float32"`` or ``"float16"`` on disk.
        seed: of the sampling of sequences and units.
        queue_size: records that may be on their way to the disk; a kill costs so many at most.
        max_wait: seconds that the training waits for an earlier record before a new one is given up.
        strict: raise what goes wrong in the monitor, instead of warning and going on without it.
        verbose: print one line at the beginning: what is recorded, how much, where, and how to watch it.
        storage_options: for remote locations.

    Raises:
        ValueError: an option has a value that is not understood.
        RecordingError: before the training, when the model or the probe does not fit.
    """

    def __init__(
        self,
        probe: Any = None,
        layers: str | list[str] | Callable[[str, nn.Module], bool] | None = None,
        *,
        every: int | str | list[int] | Callable[[int], bool] = 1,
        dashboard: bool | Literal["stay"] = False,
        record: Sequence[str] = ("h",),
        extract: Extract | None = None,
        forward: Forward | None = None,
        label_names: list[str] | None = None,
        token_names: list[str] | None = None,
        logdir: str | None = None,
        max_samples: int = 128,
        max_units: int = 512,
        max_steps: int = 512,
        max_mb: float = 16.0,
        max_weights_mb: float = 4.0,
        loop_steps: int | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        seed: int = 0,
        queue_size: int = 1,
        max_wait: float = 2.0,
        strict: bool = False,
        verbose: bool = True,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        check_record(record)
        if max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, got {max_samples}")
        if dashboard not in (True, False, "stay"):
            raise ValueError(f'dashboard= takes True, False or "stay", got {dashboard!r}')
        if dtype not in DTYPES:
            raise ValueError(f"dtype= takes {' or '.join(map(repr, DTYPES))}, got {dtype!r}")
        check_queue(queue_size, max_wait)
        if logdir is not None:
            as_location(logdir, storage_options)
        self.probe, self.layers, self.record, self.extract, self.forward = probe, layers, record, extract, forward
        self.label_names, self.token_names = label_names, token_names
        self.schedule = parse_schedule(every)
        self.budget = Budget(max_units, max_steps, max_mb, max_weights_mb)
        self.dashboard, self.logdir, self.max_samples, self.loop_steps = dashboard, logdir, max_samples, loop_steps
        self.dtype, self.seed, self.queue_size, self.max_wait = dtype, seed, queue_size, max_wait
        self.strict, self.verbose, self.storage_options = strict, verbose, storage_options
        self._key = identity(probe, layers, every, record, extract, logdir, max_samples, max_units, max_steps, seed)
        self._loaded: dict[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        """As before any training."""
        self._recorder: StateRecorder | None = None
        self._built = False  # whether the first process has a recorder, or has failed to make one
        self._session: Session | None = None
        self._page: PageProcess | None = None
        self._outbox: Outbox | None = None
        self._scalars: dict[str, float] = {}
        self._name = self._prefix = RUN_FOLDER
        self._location: str | None = None
        self._step = 0
        self._due_at_end = False
        self._looked_at: tuple[int, int] | None = None
        self._logged_epoch: int | None = None
        self._off = False

    @property
    def state_key(self) -> str:
        """Differs between monitors of different options, so that several fit on one trainer."""
        return f"{type(self).__qualname__}[{self._key}]"

    @property
    def location(self) -> str | None:
        """The folder or address of the run, once the training has begun."""
        return self._location

    # Before the training

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check, before anything expensive happens, that what was asked for can be recorded."""
        if stage != "fit":
            return
        self._forget()
        monitors = _monitors_of(trainer)
        self._prefix = numbered(monitors.index(self) + 1 if self in monitors else 1)
        refuse_sharded_models(trainer)
        if builds_layers_late(pl_module):
            return
        if self.probe is not None and not isinstance(self.probe, str):
            self._on_rank_zero(trainer, lambda: self._build_recorder(trainer, pl_module, {}))
            self._built = True
        elif self.extract is None:
            find_sources(pl_module, self.layers, record=self.record)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the run, and record the network as the training finds it."""
        if self.schedule.counts_steps:
            batches_per_epoch(trainer)
        precision = trainer.precision_plugin
        context: _Precision = {"around": precision.forward_context, "prepare": precision.convert_input}
        if not self._built:
            self._on_rank_zero(trainer, lambda: self._build_recorder(trainer, pl_module, context))
        elif self._recorder is not None:
            self._recorder.run_under(**context)
        if is_dry_run(trainer):
            return
        start = position(trainer)
        logdir = self.logdir or log_folder(trainer, self._loaded.get("logdir"))
        self._on_rank_zero(trainer, lambda: self._open(trainer, pl_module, logdir, start))
        self._step = trainer.global_step
        self._capture(trainer, start)
        if self._outbox is not None:
            with self._shielded(start):
                self._outbox.send_first()
        if self._session is not None and self.dashboard:
            self._page = start_page(logdir, stay=self.dashboard == "stay", strict=self.strict)

    def _build_recorder(self, trainer: pl.Trainer, module: pl.LightningModule, context: _Precision) -> None:
        source = self.probe
        if source is None or isinstance(source, str):
            source = data_for_probe(trainer, module, source)
        probe = as_probe(source, max_samples=self.max_samples, seed=self.seed)
        check_label_names(probe, self.label_names)
        self._recorder = StateRecorder(
            module,
            probe,
            layers=self.layers,
            record=self.record,
            extract=self.extract,
            forward=self.forward,
            budget=self.budget,
            seed=self.seed,
            loop_steps=self.loop_steps,
            **context,
        )
        if self.forward is None and (hook := changes_batches(trainer, module)):
            warnings.warn(
                f"hiddenscope: {hook} changes batches on their way to the model, and the probe does not go through it; "
                "give forward= to do with a batch what the model needs",
                RecordingWarning,
                stacklevel=2,
            )
        layers = [layer.name for layer in self._recorder.layers if layer.kind != INPUTS]
        check_wanted(metrics_wanted(trainer), self._prefix, layers, probe.labels)

    def _open(self, trainer: pl.Trainer, module: pl.LightningModule, logdir: str, start: float) -> None:
        assert self._recorder is not None
        taken = {monitor._name for monitor in _monitors_of(trainer) if monitor._session is not None}
        earlier = (str(self._loaded.get("name", self._prefix)), RUN_FOLDER) if start > UNTRAINED else ()
        label_names = self.label_names or names_of_classes(trainer, module, self.probe)
        try:
            name = name_of_run(logdir, taken, earlier=earlier, storage_options=self.storage_options)
            self._session = self._opened(name, logdir, start, type(module).__name__, label_names)
        except RunFormatError as error:
            if self.strict:
                raise
            name = name_of_run(logdir, taken, storage_options=self.storage_options)
            self._session = self._opened(name, logdir, start, type(module).__name__, label_names)
            warnings.warn(f"hiddenscope: {error}; a new run begins in {self._location}", RecordingWarning, stacklevel=2)
        self._outbox = Outbox(self._session)
        self._name = name
        self._loaded = {"logdir": logdir, "name": name}
        if self.verbose:
            where = self._session.location
            print(headline(self._recorder, self.schedule.text, where, logdir, dtype=self.dtype), flush=True)

    def _opened(self, name: str, logdir: str, start: float, model: str, label_names: list[str] | None) -> Session:
        assert self._recorder is not None
        self._location = run_location(logdir, name)
        return Session(
            self._recorder,
            self._location,
            resume_after=start if start > UNTRAINED else None,
            settings={"every": self.schedule.text, "record": list(self.record), "seed": self.seed},
            model=model,
            label_names=label_names,
            token_names=self.token_names,
            dtype=self.dtype,
            queue_size=self.queue_size,
            max_wait=self.max_wait,
            storage_options=self.storage_options,
        )

    # During the training

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add what was logged of the epoch before since its record was sent off: the module's own hook runs late."""
        self._settle(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record within an epoch, where the schedule counts steps; the epoch's last batch waits for the epoch's end."""
        before, self._step = self._step, trainer.global_step
        if not self.schedule.after_steps(before, self._step) or is_dry_run(trainer):
            return
        if trainer.is_last_batch:
            self._due_at_end = True
            return
        self._capture(trainer, trainer.current_epoch - 1 + (batch_idx + 1) / batches_per_epoch(trainer))
        self._settle(trainer)
        if self._outbox is not None:
            self._outbox.forget_last()  # what the epoch's end will say is not of this moment

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the scalars with the validation at the end of an epoch: early stopping may look for them there."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.is_last_batch:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch, unless its validation has done so, and send the record off."""
        self._look(trainer, pl_module, ended=True)
        self._settle(trainer)
        self._due_at_end = False
        self._page = watched(self._page)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As at the start of an epoch, for the last one."""
        self._settle(trainer)

    def _look(self, trainer: pl.Trainer, module: pl.LightningModule, *, ended: bool = False) -> None:
        """Record the epoch that ends, if it is due and not recorded since the last optimiser step; log the scalars."""
        if is_dry_run(trainer):
            return
        epoch, due = trainer.current_epoch, self._due_at_end
        if trainer.is_global_zero:
            with self._shielded(epoch):
                due = due or self.schedule.after_epoch(epoch)
        if trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)  # a function of the user's may say another thing in each process
        current = self._looked_at == (epoch, trainer.global_step)
        if due and not current:
            self._capture(trainer, position_at_end(trainer), ended=ended)
            self._looked_at = (epoch, trainer.global_step)
        elif not due and not any(name.endswith("/change") for name in self._scalars):
            self._capture(trainer, float(epoch), to_record=False)  # early stopping wants every scalar from the start
        if self._scalars and self._logged_epoch != epoch:
            self._logged_epoch = epoch
            with self._shielded(epoch):
                module.log_dict(self._scalars, on_step=False, on_epoch=True, batch_size=1)

    def _capture(self, trainer: pl.Trainer, epoch: float, *, to_record: bool = True, ended: bool = False) -> None:
        """Read the states on the first process; give the scalars to all of them, none after a failure."""
        named: dict[str, float] = {}
        with self._shielded(epoch):
            if self._session is not None:
                captured = self._session.capture(to_record=to_record)
                named = {f"{self._prefix}/{name}": value for name, value in captured.scalars.items()}
                if to_record and self._outbox is not None:
                    self._outbox.put(Record(epoch, captured, named, logged_step(trainer, ended=ended)))
        if trainer.world_size > 1:
            named = trainer.strategy.broadcast(named)
        self._scalars = named

    def _settle(self, trainer: pl.Trainer) -> None:
        """Send off the record that waits, or what has become known since of the last one."""
        if not is_dry_run(trainer):
            self._send(metrics_of(trainer))

    def _send(self, metrics: Mapping[str, float]) -> None:
        if self._outbox is not None:
            with self._shielded(self._outbox.waits):
                self._outbox.settle(metrics)

    # After the training, however it ends

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write what waits and close the run."""
        if stage == "fit":
            self._close("finished")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The only hook that runs when the training fails or is interrupted: write what there is."""
        self._send({})
        self._close("interrupted")

    def _close(self, status: str) -> None:
        page, self._page = self._page, None
        self._recorder = None
        if page is not None and self.dashboard != "stay":
            with contextlib.suppress(OSError):
                page.stop()
        if self._session is None:
            return
        ended = self._session.finish(status, timeout=CLOSING_PATIENCE)
        with self._shielded(None):
            self._session.raise_failure()
            if not ended:
                raise TimeoutError(f"the disk has not answered for {CLOSING_PATIENCE:g} s")
        self._session = self._outbox = None

    def state_dict(self) -> dict[str, Any]:
        """Which folder holds the run, so that a resumed training finds it."""
        return dict(self._loaded)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._loaded = dict(state_dict)

    # Never in the way

    @contextlib.contextmanager
    def _shielded(self, epoch: float | None) -> Iterator[None]:
        """A failure in this block turns the monitor off, with one warning; or is raised, with ``strict``."""
        try:
            yield
        except Exception as error:
            self._turn_off(error, epoch)

    def _turn_off(self, error: Exception, epoch: float | None) -> None:
        session, self._session, self._outbox = self._session, None, None
        lost = epoch_in_words(UNTRAINED if epoch is None else epoch)
        if session is not None:
            lost = session.first_lost(epoch)
            session.finish("interrupted", timeout=0.0)
        if self.strict:
            raise error
        if self._off:
            return  # it has been said
        self._off = True
        warn_of_failure(error, self._location or "the run", first_lost=lost)

    def _on_rank_zero(self, trainer: pl.Trainer, action: Callable[[], None]) -> None:
        """Run ``action`` on the first process; what it says about wrong use is raised on every process."""
        failure: Exception | None = None
        if trainer.is_global_zero and not self._off:
            try:
                action()
            except Exception as error:
                if self.strict or isinstance(error, (HiddenscopeError, ValueError)):
                    failure = error
                else:
                    self._turn_off(error, UNTRAINED)
        if trainer.world_size > 1:
            said = trainer.strategy.broadcast(None if failure is None else str(failure))
            if failure is None and said is not None:
                raise RecordingError(said)
        if failure is not None:
            raise failure


def _monitors_of(trainer: pl.Trainer) -> list[HiddenStateMonitor]:
    return [callback for callback in all_callbacks(trainer) if isinstance(callback, HiddenStateMonitor)]
