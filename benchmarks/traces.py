"""The traces that are measured: a synthetic benchmark with known phases, and hidden states of a trained LSTM.

They are made once and kept under ``build/benchmarks/``, as plain float32 arrays (epoch, step, unit, sample).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

KEPT = Path("build/benchmarks")
Trace = npt.NDArray[np.float32]

SCENARIO = "hopf_bif__pitchfork_bif__no_warp"


@dataclass(frozen=True)
class Lstm:
    """How to train and record one LSTM: a snapshot of all units after every few batches."""

    units: int
    steps: int
    samples: int
    snapshots: int
    batches: int


# 64 x 100 x 20 nodes = 128,000; 1307 x 128 x 30 = 5,018,880, and evenly spaced snapshots of it for fewer.
WIDE = Lstm(units=20, steps=100, samples=40, snapshots=64, batches=16)
LONG = Lstm(units=30, steps=128, samples=6, snapshots=1307, batches=4)
LIVE = Lstm(units=12, steps=16, samples=10, snapshots=1000, batches=4)
SMALL = Lstm(units=12, steps=12, samples=10, snapshots=24, batches=12)


def bifurcation(*, steps: int = 80) -> Path:
    """The bifurcation benchmark with ``steps`` of its 80 steps, evenly spaced: 606 nodes for each."""
    return _kept(f"bifurcation-{steps}", functools.partial(_bifurcation, steps))


def lstm(recipe: Lstm, *, snapshots: int | None = None) -> Path:
    """Hidden states of an LSTM while it learns to tell the exercises of the watch data apart."""
    whole = _kept(f"lstm-{recipe.units}-{recipe.steps}-{recipe.samples}-{recipe.snapshots}", lambda: _train(recipe))
    if snapshots is None or snapshots == recipe.snapshots:
        return whole
    return _kept(f"{whole.stem}-of-{snapshots}", lambda: _thinned(np.load(whole, mmap_mode="r"), snapshots))


def _train(recipe: Lstm) -> Trace:
    import torch

    from hiddenscope.experiments.datasets.hidden_states import train_lstm
    from hiddenscope.experiments.datasets.watch import watch_split

    torch.set_num_threads(1)
    return np.asarray(
        train_lstm(
            watch_split(),
            units=recipe.units,
            steps=recipe.steps,
            samples=recipe.samples,
            snapshots=recipe.snapshots,
            batches=recipe.batches,
        )
    )


def _bifurcation(steps: int) -> Trace:
    from hiddenscope.experiments.datasets.bifurcations import simulate

    whole = simulate(SCENARIO).values
    return whole[:, np.linspace(0, whole.shape[1] - 1, steps).round().astype(int)]


def _thinned(whole: Trace, snapshots: int) -> Trace:
    return np.asarray(whole[np.linspace(0, len(whole) - 1, snapshots).round().astype(int)])


def _kept(name: str, make) -> Path:  # type: ignore[no-untyped-def]
    path = KEPT / f"{name}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.save(file, make())
        partial.rename(path)
    return path
