"""What recording costs: `python -m benchmarks.recording` trains with and without the monitor, by turns.

Three questions: how much longer an epoch takes (median over pairs of trainings that follow each other, on the clock
and in processor seconds of all threads, so that nothing hides on a second core), whether memory stays flat over
thousands of epochs, and how many bytes an epoch takes on disk.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hiddenscope import HiddenStateMonitor, open_run

SAMPLES = 56  # probe sequences, as in the demo


@dataclass(frozen=True)
class Cost:
    """Trainings with the monitor against trainings without.

    Attributes:
        model: what was trained.
        pairs: of trainings, one after the other.
        epoch_s: seconds on the clock for an epoch without the monitor, median.
        wall_ratio: seconds with, divided by seconds without; median over pairs, with the least and the most.
        cpu_ratio: the same in processor seconds of all threads.
        held_ratio: 1 + seconds the training stood still inside the monitor, per second of training beside it. Taken
            within one training, so what else the machine does cancels out.
        work_ratio: 1 + processor seconds of the monitor and its thread, per processor second of training beside them.
        recorded_bytes: hidden states per epoch, as float32.
        disk_bytes: bytes on disk per epoch, all included.
    """

    model: str
    pairs: int
    epoch_s: float
    wall_ratio: float
    least_wall_ratio: float
    most_wall_ratio: float
    cpu_ratio: float
    held_ratio: float
    work_ratio: float
    recorded_bytes: int
    disk_bytes: int


_HOOKS = (
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_validation_epoch_end",
    "on_train_epoch_end",
    "on_train_end",
)


class Clock(pl.Callback):
    """Seconds on the clock and of the processor, from the start of one epoch to the start of the next."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.main_cpu: list[float] = []
        self.held_wall = self.held_cpu = 0.0

    def _look(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.main_cpu.append(time.thread_time())

    def watch(self, monitor: pl.Callback) -> None:
        """Count the time that the training spends inside this callback from its first epoch on."""
        for name in _HOOKS:
            setattr(monitor, name, self._counted(getattr(monitor, name)))

    def _counted(self, hook: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any) -> None:
            wall, cpu = time.perf_counter(), time.thread_time()
            hook(*arguments)
            self.held_wall += time.perf_counter() - wall
            self.held_cpu += time.thread_time() - cpu

        return counted

    @property
    def ratios(self) -> tuple[float, float]:
        """How much longer for the part of the training that is not the monitor: on the clock, and of the processor."""
        wall = self.wall[-1] - self.wall[0]
        main, everything = self.main_cpu[-1] - self.main_cpu[0], self.cpu[-1] - self.cpu[0]
        beside = main - self.held_cpu
        return wall / (wall - self.held_wall), everything / beside

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look()


class Sequential(pl.LightningModule):
    """An LSTM of 30 units; ``features`` decide how it is fed."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, 30, batch_first=True)
        self.readout = nn.Linear(30, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.lstm(x)[0].mean(dim=1))
        return out

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def watch_data() -> TensorDataset:
    """The watch data's training part, 128 steps of 6 features."""
    from hiddenscope.experiments.datasets.watch import watch_split

    part = watch_split().train
    return TensorDataset(torch.from_numpy(part.inputs), torch.from_numpy(part.labels))


def made_data(count: int, steps: int) -> TensorDataset:
    """Noise, to train on as fast as one likes."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(count, steps, 6, generator=generator), torch.randint(0, 7, (count,), generator=generator)
    )


def train(data: TensorDataset, folder: Path, *, epochs: int, monitored: bool, batch_size: int = 64) -> Clock:
    """One training from seed 0, every epoch recorded."""
    pl.seed_everything(0, verbose=False)
    clock = Clock()
    probe = data.tensors[0][:SAMPLES], data.tensors[1][:SAMPLES]
    monitors = [HiddenStateMonitor(probe, strict=True, verbose=False)] if monitored else []
    for monitor in monitors:
        clock.watch(monitor)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[clock, *monitors],
        logger=CSVLogger(folder),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Sequential(probe[0].shape[2], int(data.tensors[1].max()) + 1)
    trainer.fit(model, DataLoader(data, batch_size, shuffle=True))
    return clock


def compare(model: str, data: TensorDataset, *, pairs: int, epochs: int) -> Cost:
    """Pairs of trainings, by turns first with and first without the monitor."""
    wall, cpu, plain_epochs, within = [], [], [], []
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        train(data, folder / "warm", epochs=1, monitored=True)
        for pair in range(pairs):
            order = (False, True) if pair % 2 == 0 else (True, False)
            clocks = {
                monitored: train(data, folder / str(pair), epochs=epochs, monitored=monitored) for monitored in order
            }

            seconds = {monitored: (c.wall[-1] - c.wall[0], c.cpu[-1] - c.cpu[0]) for monitored, c in clocks.items()}
            wall.append(seconds[True][0] / seconds[False][0])
            cpu.append(seconds[True][1] / seconds[False][1])
            plain_epochs.append(seconds[False][0] / epochs)
            within.append(clocks[True].ratios)
        run = open_run(folder / "0")
        disk = sum(path.stat().st_size for path in Path(run.path).rglob("*") if path.is_file())
        return Cost(
            model,
            pairs,
            epoch_s=round(statistics.median(plain_epochs), 3),
            wall_ratio=round(statistics.median(wall), 4),
            least_wall_ratio=round(min(wall), 4),
            most_wall_ratio=round(max(wall), 4),
            cpu_ratio=round(statistics.median(cpu), 4),
            held_ratio=round(statistics.median(held for held, _ in within), 4),
            work_ratio=round(statistics.median(work for _, work in within), 4),
            recorded_bytes=int(np.prod(run.trace("lstm").shape[1:])) * 4,
            disk_bytes=disk // len(run.epochs),
        )


class Memory(pl.Callback):
    """Resident memory every so many epochs."""

    def __init__(self, every: int) -> None:
        self.every, self.megabytes = every, dict[int, float]()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            gc.collect()
            self.megabytes[trainer.current_epoch + 1] = psutil.Process().memory_info().rss / 1e6


def memory_over(epochs: int) -> dict[int, float]:
    """Megabytes held after each tenth of a long training of tiny epochs, all of them recorded."""
    data, memory = made_data(64, 16), Memory(max(1, epochs // 10))
    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as root:
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[HiddenStateMonitor(data.tensors[0][:SAMPLES], strict=True, verbose=False), memory],
            logger=False,
            default_root_dir=root,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Sequential(6, 7), DataLoader(data, 64))
        assert len(open_run(root).epochs) == epochs + 1
    return {epoch: round(megabytes, 1) for epoch, megabytes in memory.megabytes.items()}


def one_second(measure: Callable[[TensorDataset], float]) -> TensorDataset:
    """Made data of a size that trains for about a second per epoch here."""
    trial = made_data(1024, 32)
    return made_data(max(256, int(1024 / measure(trial))), 32)


def main(argv: list[str] | None = None) -> int:
    """Measure, print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="toy size, to see that it runs")
    parser.add_argument("--pairs", type=int, default=6, help="of trainings with and without the monitor, per model")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, Lightning {pl.__version__}",  # noqa: E501
    }
    if options.quick:
        costs = [compare("toy", made_data(64, 8), pairs=1, epochs=2)]
        results["memory_mb"] = memory_over(10)
    else:

        def epoch_seconds(data: TensorDataset) -> float:
            with tempfile.TemporaryDirectory() as root:
                clock = train(data, Path(root), epochs=3, monitored=False)
            return min(b - a for a, b in zip(clock.wall[1:], clock.wall[2:], strict=False))

        costs = [
            compare("fast model, one-second epochs", one_second(epoch_seconds), pairs=options.pairs, epochs=6),
            compare("LSTM(30) on the watch data", watch_data(), pairs=options.pairs, epochs=3),
        ]
        print(json.dumps([asdict(cost) for cost in costs]), file=sys.stderr)
        results["memory_mb"] = memory_over(2000)
    results["cost"] = [asdict(cost) for cost in costs]
    json.dump(results, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
