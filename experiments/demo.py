"""``hiddenscope demo``: train an LSTM on real data, and watch its hidden states on a page while it learns."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import sys
import time
import warnings
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hiddenscope.errors import HiddenscopeError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from hiddenscope.callbacks.page import PageProcess
    from hiddenscope.experiments.datasets.sequences import Split
    from hiddenscope.run import Run

EPOCHS = {"watch": 40, "digits": 30}
PER_CLASS = {"watch": 6, "digits": 4}
"""Probe sequences of each class: about forty in all."""
PATIENCE = 300.0
"""Seconds to wait for the last picture after the training."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument(
        "--data",
        choices=sorted(EPOCHS),
        default="watch",
        help="watch: exercises seen by a smartwatch; digits: small images, row by row (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="epochs to train (default: " + ", ".join(f"{count} for {name}" for name, count in EPOCHS.items()) + ")",
    )
    parser.add_argument(
        "--logdir", type=Path, default=Path("lightning_logs"), help="where the run is recorded (default: %(default)s)"
    )
    parser.add_argument(
        "--exit", action="store_true", help="end after training, as without a terminal, instead of serving on"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the weights and the order of the sequences (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Train, show, and say what came out; 0 when a picture of the whole training was made."""
    epochs = EPOCHS[args.data] if args.epochs is None else args.epochs
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {epochs}")
    logdir: Path = args.logdir.expanduser()
    if logdir.exists() and not logdir.is_dir():
        raise ValueError(f"--logdir takes a folder, got the file {logdir}")
    split = _split(args.data)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()

    from hiddenscope.callbacks.page import PageProcess, free_port

    logdir.mkdir(parents=True, exist_ok=True)
    with _ended_by_sigterm():
        page = PageProcess(str(logdir), port=free_port())
        try:
            print(f"Live page: {page.address}", flush=True)
            if terminal and _has_display():
                webbrowser.open(page.address)
            trained = train(split, epochs=epochs, logdir=logdir, progress=terminal, seed=args.seed)
            print(
                f"Accuracy on the {len(split.held_out)} held-out sequences: {trained.accuracy:.3f} "
                f"after {trained.epochs} epochs, {trained.seconds:.0f} s"
            )
            recorded = wait_for_picture(trained.folder, page)
            print(f"Run: {trained.folder}")
            print(f"Picture: {_picture(recorded, trained)}", flush=True)
            if terminal and not args.exit:
                print(f"Serving {page.address} until Ctrl-C", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    _serve(page)
        finally:
            page.stop()
    return 0


@dataclass(frozen=True)
class Trained:
    """A training that has ended.

    Attributes:
        folder: the log folder of the run.
        accuracy: share of the held-out sequences that are classified correctly by the last epoch's network.
        epochs: how many were trained; fewer than asked for after Ctrl-C.
        seconds: from the first step to the last, recording included.
    """

    folder: Path
    accuracy: float
    epochs: int
    seconds: float


def train(split: Split, *, epochs: int, logdir: Path, progress: bool, seed: int = 0) -> Trained:
    """Train the LSTM of `har` with the monitor.

    Args:
        split: what to learn from, and what to be judged on.
        epochs: passes over the training part.
        logdir: a new version of the demo is begun below it.
        progress: draw progress bars; else print a line now and then.
        seed: of the weights and the order of the sequences; the probe is always the same, so that runs can be compared.
    """
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import TQDMProgressBar
    from pytorch_lightning.loggers import TensorBoardLogger

    from hiddenscope.callbacks.monitor import HiddenStateMonitor
    from hiddenscope.experiments.har import SequenceClassifier, SequenceData, probe

    torch.set_num_threads(1)  # several threads on a busy machine make so small a network slower
    torch.manual_seed(seed)
    name = split.train.name
    model = SequenceClassifier(split.train.inputs.shape[2], len(split.train.label_names))
    monitor = HiddenStateMonitor(probe(split.held_out, per_class=PER_CLASS[name]), layers="lstm")
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=TensorBoardLogger(logdir, name=f"demo-{name}"),
            callbacks=[monitor, TQDMProgressBar() if progress else _line_callback()],
            enable_progress_bar=progress,
            gradient_clip_val=1.0,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
        began = time.monotonic()
        trainer.fit(model, SequenceData(split, seed=seed))
        seconds = time.monotonic() - began
    if trainer.log_dir is None or "val_accuracy" not in trainer.callback_metrics:
        raise HiddenscopeError("the training was interrupted before its first epoch ended; there is nothing to show")
    return Trained(
        folder=Path(trainer.log_dir),
        accuracy=float(trainer.callback_metrics["val_accuracy"]),
        epochs=trainer.current_epoch,
        seconds=seconds,
    )


def wait_for_picture(folder: Path, page: PageProcess, *, patience: float = PATIENCE) -> Run:
    """The run, as soon as the page's worker has embedded its last epoch.

    Raises:
        HiddenscopeError: the page died, or there is no picture after ``patience`` seconds.
    """
    from hiddenscope.dashboard import journal
    from hiddenscope.dashboard.picture import METHOD
    from hiddenscope.run import open_run

    recorded = open_run(folder)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        made = [recorded.results.get(layer, METHOD) for layer in recorded.layers]
        if all(picture is not None and picture.attrs["covers_epoch"] == recorded.epochs[-1] for picture in made):
            return recorded
        death = page.death()
        if death is not None:
            raise HiddenscopeError(f"the live page ended before the last picture was made ({death}); run: {folder}")
        time.sleep(0.2)
    entry = journal.read(Path(recorded.path))
    reason = f": {entry.error}; {entry.advice}" if entry is not None and entry.error else ""
    raise HiddenscopeError(f"no picture of the last epoch after {patience:g} s{reason}; run: {folder}")


def _split(data: str) -> Split:
    if data == "watch":
        from hiddenscope.experiments.datasets.watch import watch_split

        return watch_split()
    from hiddenscope.experiments.datasets.digits import digits_split

    return digits_split()


def _picture(recorded: Run, trained: Trained) -> Path:
    from hiddenscope.experiments.snapshot import save_snapshot

    title = f"{Path(recorded.path).parent.parent.name}: accuracy {trained.accuracy:.3f} on held-out sequences"
    return save_snapshot(recorded, trained.folder, title=title)


def _serve(page: PageProcess) -> None:
    while page.death() is None:
        time.sleep(0.5)
    raise HiddenscopeError(f"the live page ended by itself ({page.death()})")


def _line_callback() -> pl.Callback:
    import pytorch_lightning as pl

    class Lines(pl.Callback):
        """One line for the first epoch, every tenth and the last, where a progress bar cannot be drawn."""

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
            if epoch % 10 == 0 or epoch == last:
                values = {name: float(value) for name, value in trainer.callback_metrics.items()}
                print(
                    f"epoch {epoch} of {last}: train_loss {values['train_loss']:.3f}, "
                    f"val_loss {values['val_loss']:.3f}, val_accuracy {values['val_accuracy']:.3f}",
                    flush=True,
                )

    return Lines()


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips and its advice for large jobs, which does not fit a training of a minute."""
    import logging

    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*treespec.*", module="pytorch_lightning")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """While this lasts, SIGTERM unwinds like Ctrl-C, so that what was started is stopped."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _has_display() -> bool:
    """Whether a browser window could appear in front of the user."""
    if platform.system() == "Linux":
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return not os.environ.get("SSH_CONNECTION")
