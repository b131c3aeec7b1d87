"""How much of a large layer is kept: some of its units and steps, chosen once and the same for every epoch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_BYTES = 4
_FEWEST = 8
"""Neither units nor steps are thinned below this many to save space."""


@dataclass(frozen=True)
class Budget:
    """Most units and steps of one layer, and most megabytes (10**6 bytes, float32) of all layers, per epoch.

    ``max_weights_mb`` is for the parameters of the modules, which are recorded whole or not at all.
    """

    max_units: int = 512
    max_steps: int = 512
    max_mb: float = 16.0
    max_weights_mb: float = 4.0

    def __post_init__(self) -> None:
        for name in ("max_units", "max_steps", "max_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.max_weights_mb >= 0:
            raise ValueError(f"max_weights_mb must be 0 or more, got {self.max_weights_mb}")


def choose(
    sizes: Mapping[str, tuple[int, int, int]], budget: Budget, *, seed: int, kin: Mapping[str, str] | None = None
) -> dict[str, tuple[IntArray, IntArray]]:
    """Which steps and units to keep of layers whose sizes are (step, unit, sample).

    Layers of the same ``kin`` (the cell states and gates of a layer) keep the same units where they have as many.

    Units are a seeded random choice; steps are evenly spaced and include the first and the last. Where all layers
    together exceed the megabytes, steps and units of every layer are thinned by the same factor.

    >>> kept = choose({"lstm": (100, 30, 10)}, Budget(max_units=4, max_steps=5), seed=0)
    >>> kept["lstm"][0].tolist(), len(kept["lstm"][1])
    ([0, 25, 50, 74, 99], 4)
    """
    limits = {
        name: (min(steps, budget.max_steps), min(units, budget.max_units)) for name, (steps, units, _) in sizes.items()
    }
    needed = sum(steps * units * sizes[name][2] * _BYTES for name, (steps, units) in limits.items()) / 1e6
    if needed > budget.max_mb:
        factor = math.sqrt(budget.max_mb / needed)
        limits = {name: (_thinned(steps, factor), _thinned(units, factor)) for name, (steps, units) in limits.items()}
    return {
        name: (
            evenly_spaced(sizes[name][0], steps),
            _random_units((kin or {}).get(name, name), sizes[name][1], units, seed),
        )
        for name, (steps, units) in limits.items()
    }


def _thinned(count: int, factor: float) -> int:
    return max(min(count, _FEWEST), math.floor(count * factor))


def evenly_spaced(count: int, keep: int) -> IntArray:
    """``keep`` of the numbers below ``count``, as evenly spaced as whole numbers can be, ends included."""
    if keep >= count:
        return np.arange(count, dtype=np.int64)
    return np.round(np.linspace(0, count - 1, keep)).astype(np.int64)


def _random_units(name: str, count: int, keep: int, seed: int) -> IntArray:
    """Each name has its own choice, which does not depend on the others."""
    if keep >= count:
        return np.arange(count, dtype=np.int64)
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return np.sort(np.random.default_rng([seed, own]).choice(count, keep, replace=False)).astype(np.int64)
