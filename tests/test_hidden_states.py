"""The recorded LSTM: it learns, it is the same for a seed, and it leaves the global generators alone."""

from __future__ import annotations

import numpy as np
import torch

from hiddenscope.experiments.datasets.digits import digits_split
from hiddenscope.experiments.datasets.hidden_states import train_lstm


def separation(states: np.ndarray, labels: np.ndarray) -> float:
    """Variance between classes over the whole variance, of the last step's states, shape (unit, sample)."""
    means = np.stack([states[:, labels == label].mean(axis=1) for label in np.unique(labels)])
    return float(means.var(axis=0).sum() / states.var(axis=1).sum())


def test_recorded_lstm_learns_and_is_the_same_for_a_seed() -> None:
    split = digits_split()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trace = train_lstm(split, units=8, snapshots=5, batches=40, samples=60)
    assert torch.equal(torch.get_rng_state(), before)
    assert trace.sizes == {"epoch": 5, "step": 8, "unit": 8, "sample": 60}
    assert trace.epoch.values[0] == -1
    assert np.bincount(trace.label.values).tolist() == [6] * 10
    last_step = trace.isel(step=-1).values
    labels = trace.label.values
    assert separation(last_step[-1], labels) > separation(last_step[0], labels) + 0.1
    np.testing.assert_array_equal(trace, train_lstm(split, units=8, snapshots=5, batches=40, samples=60))
    other = train_lstm(split, units=8, snapshots=2, batches=1, samples=60, seed=1)
    assert not np.array_equal(other[0], trace[0])
