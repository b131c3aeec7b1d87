"""A rough live answer to "is the layer taking in or settling?", from the entropies logged so far.

The study of phases (``hiddenscope analyze``) looks at whole curves, allows for correlated noise and tests against
controls. This looks at the last few records alone, so that a training can be watched and stopped by it.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from itertools import combinations

WINDOW = 10
"""Records that are looked at; before there are as many, no phase is claimed."""
_LEAST = 29
"""Of 45 pairs of 10 records, by how many more must rise than fall: in any order, 1 in 100 does so, up or down."""


def phase_of(entropies: list[float]) -> float:
    """1 while the entropy rises (processing), -1 while it falls (compression), 0 while it does neither.

    Kendall's test for a trend in the last `WINDOW` values, at the level 0.01; unknown values make it 0.

    >>> phase_of([0.1 * i for i in range(10)]), phase_of([1.0] * 10), phase_of([3.0, 2.0])
    (1.0, 0.0, 0.0)
    """
    last = entropies[-WINDOW:]
    if len(last) < WINDOW or not all(map(math.isfinite, last)):
        return 0.0
    score = sum(int(later > earlier) - int(later < earlier) for earlier, later in combinations(last, 2))
    return math.copysign(1.0, score) if abs(score) >= _LEAST else 0.0


class PhaseWatch:
    """The entropies of every layer so far, and the phases they say."""

    def __init__(self) -> None:
        self._entropies: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def after(self, scalars: Mapping[str, float], *, keep: bool) -> dict[str, float]:
        """``layer/phase`` for every ``layer/entropy``, and ``phase`` for the last of the layers.

        Args:
            scalars: of one look at the model, named ``layer/scalar``.
            keep: whether this look is recorded, and counts for those that follow.
        """
        found: dict[str, float] = {}
        for name, value in scalars.items():
            layer, _, scalar = name.rpartition("/")
            if scalar != "entropy":
                continue
            past = self._entropies[layer]
            found[f"{layer}/phase"] = phase_of([*past, value])
            if not any(layer.startswith(f"{other[: -len('/phase')]}.") for other in found if other != "phase"):
                found["phase"] = found[f"{layer}/phase"]  # not that of a layer's cell states or gates
            if keep:
                past.append(value)
        return found
