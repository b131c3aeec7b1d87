"""A small Lightning training with everything in it that a monitor could disturb: dropout, batch norm, shuffling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hiddenscope import RecordingWarning

SEQUENCES, STEPS, FEATURES, UNITS, CLASSES = 96, 8, 3, 6, 3
EPOCHS = 4
"""Of a training beside which something goes wrong."""

LIGHTNINGS_OWN_WARNINGS = (
    "ignore:.*does not have many workers",
    "ignore:.*LeafSpec",
    "ignore:.*number of training batches",
    "ignore:.*Checkpoint directory",
    "ignore:.*Experiment logs directory",
    "ignore:.*TensorBoard",
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:You defined a `validation_step`",
    "ignore:You.re resuming from a checkpoint that ended before",
)


class Classifier(pl.LightningModule):
    """An LSTM with dropout and batch norm before its head."""

    def __init__(self, units: int = UNITS) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, units, batch_first=True)
        self.norm = nn.BatchNorm1d(units)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(units, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(self.norm(self.lstm(x)[0].mean(dim=1))))
        return out

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def on_train_epoch_end(self) -> None:
        self.log("logged_late", float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def sequences(count: int = SEQUENCES) -> TensorDataset:
    """Labeled sequences, unevenly many of each class; the same every time."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), count, replacement=True, generator=generator)
    x = torch.randn(count, STEPS, FEATURES, generator=generator) + labels[:, None, None] * 0.5
    return TensorDataset(x, labels)


def loaders(count: int = SEQUENCES, **options: Any) -> tuple[DataLoader[Any], DataLoader[Any]]:
    data = sequences(count)
    return DataLoader(data, batch_size=16, shuffle=True, **options), DataLoader(data, batch_size=32)


def trainer(folder: Path, *callbacks: Any, epochs: int = 3, **options: Any) -> pl.Trainer:
    """A quiet trainer on the CPU that logs to CSV below ``folder``."""
    settings: dict[str, Any] = {
        "logger": CSVLogger(folder),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": epochs,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**settings, **options})


class Losses(pl.Callback):
    """Every training loss, as the training saw it."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(float(outputs["loss"]))


def fit(folder: Path, *callbacks: Any, epochs: int = 3, seed: int = 0, **options: Any) -> tuple[Classifier, pl.Trainer]:
    """Train from a seed."""
    pl.seed_everything(seed, verbose=False)
    model = Classifier()
    engine = trainer(folder, *callbacks, epochs=epochs, **options)
    engine.fit(model, *loaders())
    return model, engine


class At(pl.Callback):
    """Does something at the end of an epoch."""

    def __init__(self, epoch: int, action: Callable[[Any], object]) -> None:
        self.epoch, self.action = epoch, action

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            self.action(pl_module)


def fit_with_one_warning(folder: Path, *callbacks: Any, **options: Any) -> tuple[Classifier, str]:
    """Train, and give the weights and the only warning that hiddenscope raised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, _ = fit(folder, *callbacks, epochs=EPOCHS, **options)
    ours = [str(warning.message) for warning in caught if issubclass(warning.category, RecordingWarning)]
    assert len(ours) == 1, ours
    return model, ours[0]


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), f"{name} differs"
