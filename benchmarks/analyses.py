"""How long all analyses of a run take: 201 epochs, 128 steps, 30 units, 60 samples.

``python -m benchmarks.analyses`` writes such a run (of a network whose weights grow; what is in it does not change the
time), makes every analysis, and prints seconds of the clock and of the processor for each, and the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.measure import machine
from hiddenscope.analyses.analyze import analyze
from hiddenscope.description import JSON, LayerDescription, ModuleDescription, RunDescription, Snapshot
from hiddenscope.store import SnapshotWriter

GOAL = 120.0
"""Seconds on two cores."""


class Reader(nn.Module):
    """An LSTM with a readout of its mean state."""

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, units, batch_first=True)
        self.head = nn.Linear(units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (sample, class)."""
        logits: torch.Tensor = self.head(self.lstm(x)[0].mean(dim=1))
        return logits


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--units", type=int, default=30)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--methods", nargs="+", help="only these")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write(Path(folder), asked.epochs, asked.steps, asked.units, asked.samples)
        began, before = time.perf_counter(), time.process_time()
        for method in asked.methods or names():
            start, start_cpu = time.perf_counter(), time.process_time()
            (outcome,) = analyze(folder, model=model, methods=[method], progress=False)
            seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            note = f"  {outcome.note}" if outcome.note else ""
            print(f"{method:20s} {outcome.status:15s} {seconds:7.1f} s {cpu:7.1f} s of processor{note}", flush=True)
        seconds, cpu = time.perf_counter() - began, time.process_time() - before
    print(f"{'all':20s} {'':15s} {seconds:7.1f} s {cpu:7.1f} s of processor (goal: {GOAL:g} s)")
    print(f"load {os.getloadavg()[0]:.1f}; {machine()}")


def names() -> list[str]:
    """Every analysis, in the order in which they are made."""
    from hiddenscope.analyses.studies import all_studies

    return [*(study.method for study in all_studies()), "silencing", "ablation"]


def write(folder: Path, epochs: int, steps: int, units: int, samples: int) -> nn.Module:
    """A run in a folder, and the model of its last epoch."""
    torch.manual_seed(0)
    labels = np.arange(samples) % 6
    probe = torch.randn(samples, steps, 6)
    probe[np.arange(samples), :, labels] += 0.5
    model = Reader(units, 6)
    named = dict(model.lstm.named_parameters())
    settings: dict[str, JSON] = {"module": "lstm", "module_kind": "LSTM", "level": 0, "quantity": "h", "input_size": 6}
    settings |= {"hidden_size": units, "num_layers": 1, "batch_first": True, "all_units": units, "all_steps": steps}
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(units), np.arange(steps), settings),),
        samples=np.arange(samples),
        labels=labels,
        label_names=None,
        probe_fingerprint="benchmark",
        model="Reader",
        probe=probe.numpy(),
        modules=(ModuleDescription("lstm", "LSTM", {name: tuple(weight.shape) for name, weight in named.items()}),),
    )
    start = [weight.detach().clone() for weight in model.lstm.parameters()]
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer, torch.no_grad():
        for epoch in range(-1, epochs):
            for weight, first in zip(model.lstm.parameters(), start, strict=True):
                weight.copy_(first * (0.3 + 2.0 * (epoch + 1) / (epochs + 1)))
            states = model.lstm(probe)[0].permute(1, 2, 0).contiguous().numpy()
            weights = {"lstm": {name: weight.detach().numpy().copy() for name, weight in named.items()}}
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"loss": 1.0 / (epoch + 3)}, weights))
        writer.finish("finished")
    return model


if __name__ == "__main__":
    main()
