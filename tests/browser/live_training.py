"""A real Lightning training in a process of its own that goes only as far as a file allows, for tests of what is live.

As a program it trains; `Training` starts it from a test and steers it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS, UNITS, CLASSES, PROBED = 6, 10, 2, 24
ENDLESS = 10_000
"""Epochs of a training that is ended by the test."""


class Training:
    """A training in another process; a context that ends with it.

    Args:
        logdir: where its run is recorded, as ``logdir / name``.
        name: of the run.
        allowed: epochs that it may go through for now.
        epochs: epochs after which it has finished.
        resume: go on from the checkpoint that an earlier training of this name has left.
    """

    def __init__(
        self, logdir: Path, name: str, *, allowed: int = 0, epochs: int = ENDLESS, resume: bool = False
    ) -> None:
        logdir.mkdir(parents=True, exist_ok=True)
        self.run = logdir / name / "hiddenscope"
        self.name = name
        self._permit = logdir / f".{name}.permit"
        self._permit.with_suffix(".at").unlink(missing_ok=True)
        self.allow(allowed)
        command = [sys.executable, "-W", "ignore", __file__, str(logdir), name, str(self._permit), str(epochs)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen([*command, *(["--resume"] if resume else [])], env=environment)

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def allow(self, epochs: int) -> None:
        """Let it go through so many epochs in all."""
        self.allowed = epochs
        draft = self._permit.with_suffix(".draft")
        draft.write_text(str(epochs))
        os.replace(draft, self._permit)  # it reads the old number or the new one

    def one_more(self) -> int:
        """Let it go through another epoch; gives that epoch's number."""
        self.allow(self.allowed + 1)
        return self.newest

    @property
    def newest(self) -> int:
        """The epoch that it stops after for now; -1 is the untrained network."""
        return self.allowed - 1

    @property
    def recorded(self) -> int:
        """Epochs that are recorded once it has stopped, the untrained network included."""
        return self.allowed + 1

    def wait_until_it_stands(self) -> None:
        """Wait until all that is allowed is trained, and kept as a checkpoint."""
        at = self._permit.with_suffix(".at")
        while not (at.exists() and at.read_text() == str(self.allowed)):
            assert self.process.poll() is None, f"the training ended with code {self.process.returncode}"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as the system does when memory runs out: without a word."""
        self.process.kill()
        self.process.wait()


def train(logdir: Path, name: str, permit: Path, epochs: int, *, resume: bool) -> None:
    """Train a small LSTM, waiting before each epoch until the file allows it."""
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.loggers import TensorBoardLogger
    from torch import nn

    import hiddenscope as hs

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, UNITS, batch_first=True)
            self.head = nn.Linear(UNITS, CLASSES)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            told = self(batch[0])
            loss = nn.functional.cross_entropy(told, batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            right = (told.argmax(dim=1) == batch[1]).float().mean()
            self.log("train_accuracy", right, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=2e-2)

    class Steered(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            permit.with_suffix(".at").write_text(str(trainer.current_epoch))
            while int(permit.read_text()) <= trainer.current_epoch:
                if os.getppid() != tests:
                    raise SystemExit("the tests have ended")
                time.sleep(0.02)

    tests = os.getppid()
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    x = torch.randn(64, STEPS, 3)
    y = (x[:, :, 0].sum(1) > 0).long()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
    monitor = hs.HiddenStateMonitor(probe=(x[:PROBED], y[:PROBED]), label_names=["down", "up"])
    last = logdir / name / "checkpoints"
    kept = pl.callbacks.ModelCheckpoint(dirpath=last, save_last=True, every_n_epochs=1, save_on_train_epoch_end=True)
    pl.Trainer(
        max_epochs=epochs,
        logger=TensorBoardLogger(logdir, name="", version=name),
        callbacks=[monitor, Steered(), kept],
        accelerator="cpu",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Net(), data, ckpt_path=str(last / "last.ckpt") if resume else None, weights_only=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("name")
    parser.add_argument("permit", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--resume", action="store_true")
    told = parser.parse_args()
    train(told.logdir, told.name, told.permit, told.epochs, resume=told.resume)


if __name__ == "__main__":
    main()
