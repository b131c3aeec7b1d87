"""Randomness enters by a seed, and never moves the global generator."""

from __future__ import annotations

import numpy as np

RandomState = int | np.random.Generator | np.random.RandomState | None


def draw_seed(random_state: RandomState) -> int:
    """A seed from whatever a caller may give as ``random_state``, leaving the global generator alone.

    >>> draw_seed(7)
    7
    """
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    if isinstance(random_state, (int, np.integer)) and 0 <= random_state < 2**32:
        return int(random_state)
    raise ValueError(f"random_state must be None, a seed in 0..2**32 - 1 or a numpy generator, got {random_state!r}")
