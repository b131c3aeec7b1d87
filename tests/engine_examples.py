"""Small hidden-state traces for the tests of the engine, and what compares two pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import procrustes


def recurrent_trace(
    epochs: int = 12, steps: int = 10, units: int = 5, samples: int = 8, *, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Activations of a tanh network whose weights drift from small to large, as in training."""
    generator = np.random.default_rng(seed)
    first, last = generator.normal(size=(2, units, units)) / np.sqrt(units)
    inputs = generator.normal(size=(steps, units, samples))
    trace = np.empty((epochs, steps, units, samples), np.float32)
    for epoch in range(epochs):
        share = epoch / max(epochs - 1, 1)
        weights = 0.5 * (1 - share) * first + 1.5 * share * last
        state = np.zeros((units, samples))
        for step in range(steps):
            state = np.tanh(weights @ state + inputs[step])
            trace[epoch, step] = state
    return trace


def correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Procrustes correlation of two pictures of the same points: 1 where they differ by a similarity only."""
    _, _, disparity = procrustes(
        np.reshape(one, (-1, np.shape(one)[-1])).astype(float),
        np.reshape(other, (-1, np.shape(other)[-1])).astype(float),
    )
    return float(np.sqrt(max(0.0, 1 - disparity)))
