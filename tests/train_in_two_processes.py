"""A training by two processes, for the tests: ``python train_in_two_processes.py FOLDER [plain]``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.strategies import DDPStrategy

from hiddenscope import HiddenStateMonitor
from training_examples import CLASSES, Classifier, loaders, sequences, trainer


class Measured(Classifier):
    """Has a metric that is reduced over the processes when it is read, which hangs if only one of them reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=CLASSES)

    def validation_step(self, batch: list[torch.Tensor], batch_index: int) -> None:
        self.accuracy(self(batch[0]), batch[1])
        self.log("accuracy", self.accuracy, on_epoch=True)


def _in_the_first_process_only(epoch: int) -> bool:
    """A schedule on which the processes disagree, which would hang whoever asked each for itself."""
    return torch.distributed.get_rank() == 0


def main(folder: Path, *, monitored: bool) -> None:
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    stop = EarlyStopping("hiddenscope/lstm/change", patience=10)
    monitors = [
        HiddenStateMonitor(strict=True, every=_in_the_first_process_only),
        HiddenStateMonitor(sequences(4).tensors[0], strict=True),  # made in setup, where the other one is made later
    ]
    callbacks = [*monitors, stop] if monitored else []
    engine = trainer(
        folder,
        *callbacks,
        epochs=2,
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
        default_root_dir=folder,
    )
    model = Measured()
    engine.fit(model, *loaders())
    if engine.is_global_zero:
        torch.save(model.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), monitored=sys.argv[2:] != ["plain"])
