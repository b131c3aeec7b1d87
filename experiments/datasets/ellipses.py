"""Motion on circles and ellipses: sequences whose orthogonal modes are known in advance.

The synthetic dynamics of Su & Shlizerman (2019, arXiv:1905.12176) are motion on a circle and on an ellipse; axes,
speed, phases and noise here are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

KINDS = {"circle": (1.0, 1.0), "wide ellipse": (1.6, 0.5), "tall ellipse": (0.5, 1.6)}
"""Name and semi-axes of each kind."""


def ellipse(
    axes: tuple[float, float], steps: int, *, phase: float = 0.0, period: float = 25.0
) -> npt.NDArray[np.float64]:
    """Points (step, 2) on an ellipse, at an even pace of its angle.

    >>> ellipse((2.0, 1.0), 2, period=4).round(6).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    angle = 2 * np.pi * np.arange(steps) / period + phase
    return np.stack([axes[0] * np.cos(angle), axes[1] * np.sin(angle)], axis=1)


def load_ellipses(
    *, per_kind: int, steps: int, noise: float = 0.02, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Sequences (sequence, step, 2) of all kinds with random phases and a little noise, and the kind of each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(KINDS)), per_kind)
    axes = list(KINDS.values())
    clean = [ellipse(axes[label], steps, phase=rng.uniform(0, 2 * np.pi)) for label in labels]
    return (np.stack(clean) + noise * rng.normal(size=(len(labels), steps, 2))).astype(np.float32), labels
