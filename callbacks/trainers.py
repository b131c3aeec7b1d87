"""What the monitor asks of a Trainer, of ``pytorch_lightning`` or ``lightning.pytorch``, as functions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from hiddenscope.callbacks.folders import numbered_folder
from hiddenscope.callbacks.undisturbed import random_state_kept
from hiddenscope.errors import RecordingError

_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")


def position(trainer: pl.Trainer) -> float:
    """How much training lies behind the model, as an epoch number: -1 before any, ``e`` after epoch ``e``."""
    return trainer.current_epoch - 1 + _part(trainer)


def position_at_end(trainer: pl.Trainer) -> float:
    """The same at the end of an epoch: its number, or less where the training stops within it (``max_steps``)."""
    return (
        float(trainer.current_epoch) if trainer.is_last_batch else trainer.current_epoch - 1 + (_part(trainer) or 1.0)
    )


def _part(trainer: pl.Trainer) -> float:
    """Which part of an epoch is done, 0 at its beginning, at its end, and where nobody knows its length."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    count = trainer.num_training_batches
    return float(done / count) if 0 < done < count < float("inf") else 0.0


def batches_per_epoch(trainer: pl.Trainer) -> int:
    """Number of training batches in an epoch; `RecordingError` when nobody knows it."""
    count = trainer.num_training_batches
    if count == float("inf"):
        raise RecordingError(
            "every= in steps needs a training dataloader of known length, to say which part of an epoch has passed; "
            "give the Trainer limit_train_batches=, or record by epochs"
        )
    return int(count)


def is_dry_run(trainer: pl.Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, of which nothing is to be written."""
    return bool(getattr(trainer, "fast_dev_run", False))


def all_callbacks(trainer: pl.Trainer) -> list[Any]:
    """The trainer's callbacks, of any class."""
    return list(getattr(trainer, "callbacks", []))


def metrics_of(trainer: pl.Trainer) -> dict[str, float]:
    """All logged metrics. Call it on every process: some are reduced over processes when they are read."""
    found = {}
    for name, value in trainer.callback_metrics.items():
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # not a number: not for us to say so
            found[str(name)] = float(value)
    return found


def metrics_wanted(trainer: pl.Trainer) -> dict[str, str]:
    """The metrics without which other callbacks, such as early stopping, would fail, with the class of the callback."""
    waiting = [each for each in all_callbacks(trainer) if getattr(each, "strict", True)]
    found = {getattr(each, "monitor", None): type(each).__name__ for each in waiting}
    return {name: kind for name, kind in found.items() if isinstance(name, str)}


def logged_step(trainer: pl.Trainer, *, ended: bool = False) -> int:
    """The step at which loggers draw what is logged now; Lightning counts it apart from ``global_step``.

    Args:
        trainer: of the training.
        ended: whether the epoch's last batch is counted already; its metrics are drawn at the step of that batch.
    """
    counted = int(getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step))
    return max(0, counted - 1) if ended else counted


def log_folder(trainer: pl.Trainer, earlier: str | None) -> str:
    """The folder of the first logger's current version. Call it on every process.

    Without a logger it is ``earlier``, when that still exists (the folder of the training that is resumed), else a new
    numbered folder below ``default_root_dir``.
    """
    by_trainer = trainer.log_dir
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is not None and hasattr(logger, "log_dir") and by_trainer is not None:
        return str(by_trainer)
    save_dir = getattr(logger, "save_dir", None)
    if logger is not None and save_dir is not None:
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        return str(Path(save_dir) / str(logger.name) / version)
    if earlier is not None and Path(earlier).exists():
        return earlier
    return numbered_folder(str(trainer.default_root_dir))


def data_for_probe(trainer: pl.Trainer, module: pl.LightningModule, method: str | None) -> Any:
    """What a probe is drawn from when the user gave none, or only the name of a method.

    Raises:
        RecordingError: there is no such method, or no data at all.
    """
    owners = [owner for owner in (trainer.datamodule, module) if owner is not None]  # type: ignore[attr-defined]
    for owner in owners:
        function = getattr(owner, method or "probe_dataloader", None)
        if callable(function):
            with random_state_kept():
                return _first_loader(function())
    if method is not None:
        names = " or ".join(type(owner).__name__ for owner in owners)
        raise RecordingError(f'got probe="{method}"; {names} has no method of that name')
    validation = trainer.fit_loop.epoch_loop.val_loop._data_source
    for ready, source in (
        (trainer.val_dataloaders, validation),
        (trainer.train_dataloader, trainer.fit_loop._data_source),
    ):
        if ready is not None:
            return _first_loader(ready)
        if source.instance is not None and source.is_defined():
            with random_state_kept():
                return _first_loader(source.dataloader())
    raise RecordingError("there is no dataloader to draw a probe from; give probe= a batch")


def names_of_classes(trainer: pl.Trainer, module: pl.LightningModule, probe: Any) -> list[str] | None:
    """What datamodule, module, probe or validation data call their classes, if one of them does."""
    loaders = (probe, trainer.val_dataloaders, trainer.train_dataloader)
    data = [getattr(_first_loader(loader), "dataset", None) for loader in loaders if loader is not None]
    for owner in (getattr(trainer, "datamodule", None), module, *data):
        for attribute in ("label_names", "classes"):
            names = getattr(owner, attribute, None)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return list(names)
    return None


def _first_loader(loaders: Any) -> Any:
    """The first of several dataloaders, however they are collected."""
    held = getattr(loaders, "iterables", loaders)
    if isinstance(held, Mapping):
        return _first_loader(next(iter(held.values())))
    if isinstance(held, (list, tuple)) and held and not _looks_like_batch(held):
        return _first_loader(held[0])
    return held


def _looks_like_batch(parts: list[Any] | tuple[Any, ...]) -> bool:
    return not any(hasattr(part, "dataset") or hasattr(part, "iterables") for part in parts)


def builds_layers_late(module: pl.LightningModule) -> bool:
    """Whether the module has a ``setup`` or ``configure_model`` of its own, which may make layers after our setup."""
    return any(_is_own(module, name) for name in ("setup", "configure_model", "configure_sharded_model"))


def changes_batches(trainer: pl.Trainer, module: pl.LightningModule) -> str | None:
    """The user's hook through which batches go before or after they are moved to the device, if there is one."""
    owners = (module, getattr(trainer, "datamodule", None))
    hooks = ("on_before_batch_transfer", "on_after_batch_transfer")
    return next((f"{type(o).__name__}.{hook}" for o in owners for hook in hooks if _is_own(o, hook)), None)


def _is_own(owner: object, hook: str) -> bool:
    """Whether a hook is not one of Lightning's, which do nothing."""
    function = getattr(type(owner), hook, None)
    return function is not None and not function.__module__.startswith(("pytorch_lightning.", "lightning."))


def refuse_sharded_models(trainer: pl.Trainer) -> None:
    """Raise `RecordingError` when no process holds the whole model, so that none could run the probe alone."""
    name = type(trainer.strategy).__name__
    if any(kind in name for kind in _SHARDED):
        raise RecordingError(
            f"the model is sharded over processes ({name}), and the probe is run by one of them alone; "
            "train with strategy='ddp' or on one device, or take the monitor out"
        )
