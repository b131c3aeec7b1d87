"""Hidden states of an LSTM while it learns, without a Trainer: a real trace in seconds, for tests and benchmarks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.experiments.datasets.sequences import Split


def train_lstm(
    split: Split,
    *,
    units: int,
    snapshots: int,
    batches: int,
    samples: int,
    steps: int | None = None,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> xr.DataArray:
    """Train one LSTM layer with a linear readout averaged over time, and record it as it goes.

    Args:
        split: labeled sequences; the network learns from the training part, and is watched on the held-out part.
        units: of the layer.
        snapshots: how often it is recorded; the first time before any training.
        batches: of 32 sequences, between two snapshots (for a real epoch, a 32nd of the training part).
        samples: held-out sequences to watch, taken from the classes in turn.
        steps: of each sequence that are used; None for all.
        learning_rate: of Adam.
        seed: of the weights and the batches. The global generators are left as they were.

    Returns:
        Float32, dims (epoch, step, unit, sample), with the class of each sample as coordinate ``label``; epoch -1 is
        the untrained network.
    """
    import torch
    from torch import nn

    inputs = torch.from_numpy(split.train.inputs[:, :steps])
    labels = torch.from_numpy(split.train.labels)
    watched = _classes_in_turn(split.held_out.labels, samples)
    probe = torch.from_numpy(split.held_out.inputs[watched, :steps])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.LSTM(inputs.shape[-1], units, batch_first=True)
        readout = nn.Linear(units, len(split.train.label_names))
    optimizer = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=learning_rate)
    draws = np.random.default_rng(seed)
    trace = np.empty((snapshots, inputs.shape[1], units, len(watched)), np.float32)
    for snapshot in range(snapshots):
        for _ in range(batches if snapshot else 0):
            batch = torch.from_numpy(draws.choice(len(inputs), 32, replace=False))
            loss = nn.functional.cross_entropy(readout(layer(inputs[batch])[0]).mean(dim=1), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            trace[snapshot] = layer(probe)[0].permute(1, 2, 0).numpy()
    return xr.DataArray(
        trace,
        dims=("epoch", "step", "unit", "sample"),
        coords={
            "epoch": np.arange(-1, snapshots - 1),
            "step": np.arange(trace.shape[1]),
            "unit": np.arange(units),
            "sample": watched,
            "label": ("sample", split.held_out.labels[watched]),
        },
        name="lstm",
    )


def _classes_in_turn(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """The first of every class, then the second of every class, up to ``count``."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = [group[turn] for turn in range(count) for group in members if turn < len(group)]
    return np.array(turns[:count])
