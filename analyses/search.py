"""Where else was the network in this state? Periods in which the same set of units is active.

As LSTMVis (Strobelt et al. 2018) has it: pick a period of one sequence; the units that are above a threshold all
through it are the pattern; other periods are ranked by how many of these units they share, by how few others are active
with them, and by their length. States are kept as bits, so that a million steps are searched in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from hiddenscope.analyses.activations import Sign, as_activations, score

Words = npt.NDArray[np.uint64]
Ranking = Literal["intersection", "jaccard", "length"]
THRESHOLD = 0.3
"""The activation from which a unit counts as active; the default of LSTMVis."""
COLUMNS = ("sample", "start", "end", "length", "intersection", "union", "jaccard")


@dataclass(frozen=True)
class Matches:
    """What a search found.

    Attributes:
        units: labels of the units that make the pattern; empty where no unit was active all through the period.
        table: one row per match, the best first: ``sample`` by its label, ``start`` and ``end`` (inclusive) as
            positions along the step axis, ``length`` in steps, ``intersection`` (units of the pattern that are active
            all through the match), ``union`` (of the pattern and all units that are active all through the match) and
            their quotient ``jaccard``.
    """

    units: npt.NDArray[Any]
    table: pd.DataFrame


class StateIndex:
    """The states of one epoch, as bits: which unit is active when. Build it once, search it often.

    Args:
        activations: dims (step, unit, sample), one epoch of a trace; NaN is never active.
        threshold: a unit is active strictly above it: one number, or one per unit.
        sign: whether high, low or both kinds of activation count; the threshold is that of the score.

    Raises:
        ValueError: other dims, or not one threshold per unit.

    >>> wave = np.tile([0.0, 1.0, 1.0, 0.0, 0.0], 3)
    >>> index = StateIndex(wave.reshape(15, 1, 1))
    >>> index.search(sample=0, start=1, end=2).table[["start", "end"]].values.tolist()
    [[6, 7], [11, 12]]
    """

    def __init__(
        self,
        activations: xr.DataArray | npt.ArrayLike,
        *,
        threshold: float | npt.ArrayLike = THRESHOLD,
        sign: Sign = "positive",
    ) -> None:
        named = as_activations(activations)
        sizes = named.sizes
        self.units: npt.NDArray[Any] = _labels(named, "unit")
        self.samples: npt.NDArray[Any] = _labels(named, "sample")
        self.n_steps = sizes["step"]
        levels = np.asarray(threshold, dtype=np.float64)
        if levels.shape not in ((), (sizes["unit"],)):
            raise ValueError(f"one threshold, or one for each of {sizes['unit']} units, got shape {levels.shape}")
        scores = score(named, sign=sign).transpose("sample", "step", "unit").values
        with np.errstate(invalid="ignore"):
            active = scores > levels
        packed = np.packbits(active, axis=2, bitorder="little")
        words = -(-sizes["unit"] // 64)
        wide = np.zeros((sizes["sample"], self.n_steps + 1, 8 * words), dtype=np.uint8)
        wide[:, : self.n_steps, : packed.shape[2]] = packed  # the last step is empty, and keeps sequences apart
        self._words: Words = np.ascontiguousarray(wide.view(np.uint64).reshape(-1, words).T)  # (word, place)

    def active_units(self, *, sample: Any, start: int, end: int, alone: bool = False) -> npt.NDArray[Any]:
        """Labels of the units that are active at every step of a period.

        Args:
            sample: label of the sequence.
            start: first step, a position along the step axis.
            end: last step, included.
            alone: only units that are silent right before and right after the period.
        """
        return np.asarray(self.units[self._bits(self._pattern(self._row(sample), start, end, alone))])

    def search(
        self,
        *,
        sample: Any,
        start: int,
        end: int,
        units: Sequence[Any] | None = None,
        alone: bool = False,
        rank: Ranking = "intersection",
        limit: int = 25,
        min_length: int = 1,
        max_length: int | None = None,
    ) -> Matches:
        """Periods in which most of the same units are active, the best first; the picked one is not among them.

        A match is a maximal stretch of steps at each of which at least m units of the pattern are active, for the
        highest m that this stretch reaches anywhere.

        Args:
            sample: label of the sequence the period is in.
            start: first step of the period, a position along the step axis.
            end: last step, included.
            units: labels of the units that make the pattern, instead of those active all through the period.
            alone: see `active_units`.
            rank: ``"intersection"``: most units shared, then fewest others, then longest. ``"jaccard"``: the largest
                quotient of the two; ``"length"``: the longest; both among the 20 ``limit`` matches that share most.
            limit: most matches.
            min_length: shorter matches, in steps, are left out.
            max_length: longer ones, too.

        Raises:
            ValueError: a sample, period, unit or ranking that does not exist.
        """
        if rank not in ("intersection", "jaccard", "length"):
            raise ValueError(f"rank must be 'intersection', 'jaccard' or 'length', got {rank!r}")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        row = self._row(sample)
        pattern = self._pattern(row, start, end, alone)
        if units is not None:
            pattern = self._mask(units)
        chosen = self.units[self._bits(pattern)]
        if not len(chosen):
            return Matches(chosen, pd.DataFrame(columns=list(COLUMNS)))
        shared = _shared(self._words, pattern)
        here = row * (self.n_steps + 1)
        wanted = limit if rank == "intersection" else 20 * limit
        lengths = (min_length, self.n_steps if max_length is None else max_length)
        starts, ends, inside = _stretches(self._words, shared, pattern, wanted, lengths, (here + start, here + end))
        intersection, union = _count(inside & pattern[:, None]), _count(inside | pattern[:, None])
        length, jaccard = ends - starts + 1, intersection / union
        keys: dict[str, tuple[npt.NDArray[Any], ...]] = {
            "intersection": (starts, -length, union, -intersection),
            "jaccard": (starts, -length, -intersection, -jaccard),
            "length": (starts, union, -intersection, -length),
        }
        best = np.lexsort(keys[rank])[:limit]
        rows, first = np.divmod(starts[best], self.n_steps + 1)
        table = pd.DataFrame(
            {
                "sample": self.samples[rows],
                "start": first,
                "end": first + length[best] - 1,
                "length": length[best],
                "intersection": intersection[best],
                "union": union[best],
                "jaccard": jaccard[best],
            },
            columns=list(COLUMNS),
        )
        return Matches(chosen, table)

    def _row(self, sample: Any) -> int:
        rows = np.flatnonzero(self.samples == sample)
        if not len(rows):
            raise ValueError(f"got sample {sample!r}; there are {len(self.samples)}, from {self.samples[0]}")
        return int(rows[0])

    def _pattern(self, row: int, start: int, end: int, alone: bool) -> Words:
        if not 0 <= start <= end < self.n_steps:
            raise ValueError(f"a period lies within steps 0..{self.n_steps - 1}, got {start} to {end}")
        place = row * (self.n_steps + 1) + start
        after = place + end - start + 1
        pattern: Words = np.bitwise_and.reduce(self._words[:, place:after], axis=1)
        if alone:
            pattern = pattern & ~self._words[:, after]
            if start:
                pattern = pattern & ~self._words[:, place - 1]
        return pattern

    def _mask(self, units: Sequence[Any]) -> Words:
        wanted = np.isin(self.units, np.asarray(units))
        if wanted.sum() != len(set(units)):
            raise ValueError(f"got units {list(units)!r}; this layer has {len(self.units)}, from {self.units[0]}")
        padded = np.zeros(len(self._words) * 64, dtype=bool)
        padded[: len(wanted)] = wanted
        return np.packbits(padded, bitorder="little").view(np.uint64)

    def _bits(self, pattern: Words) -> npt.NDArray[np.bool_]:
        return np.unpackbits(pattern.view(np.uint8), bitorder="little")[: len(self.units)].astype(bool)


def _stretches(
    words: Words,
    shared: npt.NDArray[np.uint16],
    pattern: Words,
    wanted: int,
    lengths: tuple[int, int],
    picked: tuple[int, int],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Words]:
    """First and last place of each match, and the units active all through it; complete for the ``wanted`` best."""
    found: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Words]] = []
    intersections: npt.NDArray[np.intp] = np.zeros(0, dtype=np.intp)
    levels = np.flatnonzero(np.bincount(shared))[::-1]
    levels = levels[levels > 0]
    for place, level in enumerate(levels):
        starts, ends = _runs(shared >= level)
        highest = np.maximum.reduceat(shared, starts)
        fits = (highest == level) & (ends - starts + 1 >= lengths[0]) & (ends - starts + 1 <= lengths[1])
        fits &= (ends < picked[0]) | (starts > picked[1])
        starts, ends = starts[fits], ends[fits]
        if len(starts):
            inside = _all_through(words, starts, ends)
            found.append((starts, ends, inside))
            intersections = np.concatenate([intersections, _count(inside & pattern[:, None])])
        following = levels[place + 1] if place + 1 < len(levels) else 0
        if (intersections >= following).sum() >= wanted:
            break
    if not found:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), words[:, :0]
    starts, ends, inside = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    return starts, ends, inside


def _shared(words: Words, pattern: Words) -> npt.NDArray[np.uint16]:
    """How many units of the pattern are active at each place."""
    total = np.zeros(words.shape[1], dtype=np.uint16)
    for bits, wanted in zip(words, pattern, strict=True):
        if wanted:
            total += np.bitwise_count(bits & wanted)
    return total


def _runs(on: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First and last place of each stretch of True; the last place of ``on`` is never True."""
    changes = np.flatnonzero(on[1:] != on[:-1]) + 1
    if on[0]:
        changes = np.concatenate([[0], changes])
    return changes[::2], changes[1::2] - 1


def _all_through(words: Words, starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]) -> Words:
    """For each stretch, the bits that are set at all of its places; dims (word, stretch)."""
    edges = np.stack([starts, ends + 1], axis=1).reshape(-1)  # the place after a stretch is within the array
    return np.asarray(np.bitwise_and.reduceat(words, edges, axis=1)[:, ::2])


def _count(words: Words) -> npt.NDArray[np.intp]:
    """Bits set in each column."""
    return np.asarray(np.bitwise_count(words).sum(axis=0, dtype=np.intp))


def _labels(named: xr.DataArray, dim: str) -> npt.NDArray[Any]:
    return np.asarray(named[dim].values) if dim in named.coords else np.arange(named.sizes[dim])
