"""Which unit of one network does what a unit of another does: units matched one to one by their responses.

Unit 3 of one training and unit 3 of another share nothing but a number, unless both began from the same weights: the
units of a layer can be put in any order without changing what the network computes. What makes two units the same in
two trainings is that they answer alike to the same samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.optimize import linear_sum_assignment

from hiddenscope.embeddings.nodes import LEAST_PRESENT
from hiddenscope.embeddings.seeds import RandomState, draw_seed
from hiddenscope.trace import as_trace

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
By = Literal["response", "number"]

ALIKE = 0.99
"""Units that correlate at least so much before the training are taken to have the same weights."""
_TIED = 1e-6


@dataclass(frozen=True)
class UnitMatch:
    """Pairs of units of two networks.

    Attributes:
        by: how they were paired, ``"response"`` or ``"number"``.
        pairs: positions of the units of each pair in the first and in the second network, in the order of the first;
            shape (pair, 2), with as many pairs as the smaller network has units.
        correlations: of every unit with every other, as `unit_correlations` gives them, with the units' labels.
        chance: median correlation of the pairs that the same matching finds between networks that have nothing to do
            with each other: the samples of one are shuffled. NaN without shuffles.
    """

    by: By
    pairs: Positions
    correlations: xr.DataArray
    chance: float

    @property
    def first(self) -> npt.NDArray[Any]:
        """Label of the first network's unit in each pair, shape (pair,)."""
        return np.asarray(self.correlations["unit_of_first"].values[self.pairs[:, 0]])

    @property
    def second(self) -> npt.NDArray[Any]:
        """Label of the second network's unit in each pair, shape (pair,)."""
        return np.asarray(self.correlations["unit_of_second"].values[self.pairs[:, 1]])

    @property
    def correlation(self) -> Floats:
        """Correlation of each pair, shape (pair,); NaN where a pair cannot be compared."""
        return np.asarray(self.correlations.values[self.pairs[:, 0], self.pairs[:, 1]])

    @property
    def median(self) -> float:
        """Median correlation of the pairs that can be compared; NaN where none can."""
        return _median(self.correlation)

    @property
    def rows(self) -> Positions:
        """Every unit of both networks once, shape (row, 2): position in the first and in the second, -1 where it is
        alone. The units of the first come in their own order, then those of the second that are alone.
        """
        counts = self.correlations.shape
        partner = np.full(counts[0], -1)
        partner[self.pairs[:, 0]] = self.pairs[:, 1]
        alone = np.setdiff1d(np.arange(counts[1]), self.pairs[:, 1])
        ours = np.stack([np.arange(counts[0]), partner], axis=1)
        return np.concatenate([ours, np.stack([np.full(len(alone), -1), alone], axis=1)]).astype(np.int64)


def match_units(
    first: xr.DataArray | npt.ArrayLike,
    second: xr.DataArray | npt.ArrayLike,
    *,
    by: By = "response",
    permutations: int = 10,
    random_state: RandomState = 0,
) -> UnitMatch:
    """Pair the units of two networks so that the pairs respond as much alike as they can, all together.

    The pairs are one to one and maximize the sum of `unit_correlations` at the last epoch of each. All units of the
    smaller network get a partner, however little alike the two may be: look at ``correlation``. Pairs that cannot be
    compared count as 0. A unit is not paired with its negative: to MM-PHATE, which sees responses with their sign, the
    two are as far apart as can be.

    Args:
        first: hidden states, dims (epoch, step, unit, sample).
        second: the same of another network on the same samples; epochs, steps and units may be others.
        by: ``"response"``, or ``"number"`` to pair each unit with its namesake and only see how alike they are.
        permutations: how often the samples are shuffled to find ``chance``; 0 for no chance.
        random_state: of the shuffles.

    Raises:
        ValueError: the samples differ, no step is common, ``by`` is unknown or ``permutations`` negative, or the labels
            of the units differ and they shall be matched by number.
    Source: Li et al. 2015 (Convergent learning: do different neural networks learn the same representations?), which
        matches units one to one by their correlation. How likeness is averaged over steps, missing values and chance
        are ours.

    >>> trace = np.random.default_rng(0).normal(size=(2, 4, 5, 30))
    >>> match = match_units(trace, trace[:, :, [2, 0, 4, 1, 3]])
    >>> match.second.tolist(), round(match.median, 6)
    ([1, 3, 0, 4, 2], 1.0)
    """
    if by not in get_args(By):
        raise ValueError(f"units are matched by 'response' or by 'number', got {by!r}")
    if permutations < 0:
        raise ValueError(f"the samples cannot be shuffled {permutations} times")
    one, other = _comparable(first, second)
    if by == "number" and not np.array_equal(one["unit"], other["unit"]):
        raise ValueError(
            f"matching by number needs the same units in both, got {one.sizes['unit']} and {other.sizes['unit']} units"
            " that are not labeled alike; match them by response"
        )
    table = _correlations(one.values, other.values)
    rng = np.random.default_rng(draw_seed(random_state))
    shuffled = []
    for _ in range(permutations):
        found = _correlations(one.values, other.values[..., rng.permutation(other.sizes["sample"])])
        pairs = _pairs(found, by)
        shuffled.append(_median(found[pairs[:, 0], pairs[:, 1]]))
    known = [value for value in shuffled if math.isfinite(value)]
    return UnitMatch(by, _pairs(table, by), _named(table, one, other), float(np.mean(known)) if known else math.nan)


def unit_correlations(first: xr.DataArray | npt.ArrayLike, second: xr.DataArray | npt.ArrayLike) -> xr.DataArray:
    """How much alike each unit of one network and each of another respond, from -1 to 1.

    At every step that both have, the correlation over the samples; then the mean over these steps. With responses
    normalized per step, as MM-PHATE normalizes its nodes, the squared distance of two units at a step is
    ``2 n (1 - correlation)`` for n samples, so the most correlated units are those whose nodes lie closest. (One
    correlation over steps and samples together would also count the mean course over the steps, which MM-PHATE does not
    see.) The sign counts for the same reason. The last epoch speaks, since that is what a training has made of a unit.

    A step counts where both units have a value for at least half of the samples, 2 at least, and over those. Where one
    of the two units answers to all samples alike, the correlation is 0; where both do, the step does not count.

    Args:
        first: hidden states, dims (epoch, step, unit, sample), of which the last epoch with a finite value counts.
        second: the same of another network on the same samples.

    Returns:
        Dims (unit_of_first, unit_of_second); NaN where no step counts.

    Raises:
        ValueError: the samples differ, or no step is common.

    >>> trace = np.random.default_rng(0).normal(size=(1, 3, 2, 9))
    >>> unit_correlations(trace, -trace).values.diagonal().round(6).tolist()
    [-1.0, -1.0]
    """
    one, other = _comparable(first, second)
    return _named(_correlations(one.values, other.values), one, other)


def begin_alike(first: xr.DataArray | npt.ArrayLike, second: xr.DataArray | npt.ArrayLike) -> bool:
    """Whether two trainings began from the same weights, as far as their responses tell.

    So it is taken to be where, at the first epoch that both have, each unit correlates with its namesake by `ALIKE` at
    least, and no other pairing of the units would be better. Where the untrained network was not recorded, this asks
    for trainings that have not yet parted.

    Args:
        first: hidden states, dims (epoch, step, unit, sample).
        second: the same of another network.

    Raises:
        ValueError: the samples differ, or no step is common.

    >>> trace = np.random.default_rng(0).normal(size=(2, 3, 4, 9))
    >>> begin_alike(trace, trace), begin_alike(trace, trace[:, :, ::-1])
    (True, False)
    """
    one, other = as_trace(first), as_trace(second)
    common = np.intersect1d(one["epoch"], other["epoch"])
    if not len(common) or not np.array_equal(one["unit"], other["unit"]):
        return False
    table = unit_correlations(one.sel(epoch=common[:1]), other.sel(epoch=common[:1])).values
    own = table.diagonal()
    if not np.isfinite(own).any() or np.nanmin(own) < ALIKE:
        return False
    best = _pairs(table, "response")
    known = np.nan_to_num(table)
    return bool(known[best[:, 0], best[:, 1]].sum() <= known.diagonal().sum() + _TIED)


def _comparable(first: object, second: object) -> tuple[xr.DataArray, xr.DataArray]:
    """The last epoch of each, dims (step, unit, sample), at the steps that both have."""
    one, other = as_trace(first), as_trace(second)  # type: ignore[arg-type]
    named = all(isinstance(given, xr.DataArray) and "sample" in given.coords for given in (first, second))
    if one.sizes["sample"] != other.sizes["sample"] or (named and not np.array_equal(one["sample"], other["sample"])):
        raise ValueError(
            f"units are matched by what they answer to the same samples; got {one.sizes['sample']} and "
            f"{other.sizes['sample']} samples that are not the same, in the same order"
        )
    steps = np.intersect1d(one["step"], other["step"])
    if not len(steps):
        raise ValueError(f"no step is common: {_extent(one['step'].values)} and {_extent(other['step'].values)}")
    return _last(one).sel(step=steps), _last(other).sel(step=steps)


def _last(trace: xr.DataArray) -> xr.DataArray:
    """The last epoch in which anything is finite: a training that has diverged says nothing any more."""
    for epoch in range(trace.sizes["epoch"] - 1, -1, -1):
        if np.isfinite(trace.values[epoch]).any():
            return trace.isel(epoch=epoch)
    return trace.isel(epoch=-1)


def _extent(steps: npt.NDArray[Any]) -> str:
    return f"steps {steps.min()} to {steps.max()}" if len(steps) else "no steps"


def _named(table: Floats, one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    coords = {"unit_of_first": one["unit"].values, "unit_of_second": other["unit"].values}
    return xr.DataArray(table, dims=tuple(coords), coords=coords, name="correlation")


def _pairs(table: Floats, by: By) -> Positions:
    if by == "number":
        return np.stack([np.arange(len(table))] * 2, axis=1)
    return np.stack(linear_sum_assignment(np.nan_to_num(table), maximize=True), axis=1).astype(np.int64)


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _correlations(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Floats:
    """Mean over steps of the correlation over samples; of dims (step, unit, sample) each, to (unit, unit)."""
    total = np.zeros((one.shape[1], other.shape[1]))
    count = np.zeros(total.shape, dtype=np.int64)
    least = max(2.0, LEAST_PRESENT * one.shape[2])
    for ours, theirs in zip(one, other, strict=True):
        found = _at_step(ours.astype(np.float64), theirs.astype(np.float64), least)
        known = np.isfinite(found)
        total += np.where(known, found, 0.0)
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _at_step(ours: Floats, theirs: Floats, least: float) -> Floats:
    """Correlation of every row with every row, over the samples that both have; NaN where the step does not count."""
    here, there = np.isfinite(ours), np.isfinite(theirs)
    whole = here.all(axis=0) & there.all(axis=0)
    if (whole == (here.any(axis=0) & there.any(axis=0))).all():
        # What is missing is missing for all units, as beyond the end of a sequence: one product is enough.
        if whole.sum() < least:
            return np.full((len(ours), len(theirs)), np.nan)
        return _judged(*_scores(ours[:, whole]), *_scores(theirs[:, whole]))
    x, y = _centered(ours, here), _centered(theirs, there)
    a, b = here.astype(np.float64), there.astype(np.float64)
    n = a @ b.T
    shared = np.maximum(n, 1.0)
    sum_x, sum_y = x @ b.T, a @ y.T
    square_x, square_y = x**2 @ b.T, a @ (y**2).T
    spread_x, spread_y = square_x - sum_x**2 / shared, square_y - sum_y**2 / shared
    # Of values that are equal over the shared samples alone, rounding leaves a spread of about this size.
    varies_x, varies_y = spread_x > 1e-10 * square_x, spread_y > 1e-10 * square_y
    scale = np.sqrt(np.where(varies_x & varies_y, spread_x * spread_y, 1.0))
    found = np.where(varies_x & varies_y, np.clip((x @ y.T - sum_x * sum_y / shared) / scale, -1.0, 1.0), 0.0)
    return np.where((n >= least) & (varies_x | varies_y), found, np.nan)


def _scores(values: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Rows of mean 0 and norm 1, and which of them vary; the others are 0."""
    centered = _centered(values, np.ones(values.shape, dtype=bool))
    norm = np.sqrt((centered**2).sum(axis=1))
    varies = norm > 0
    return centered / np.where(varies, norm, 1.0)[:, None], varies


def _judged(ours: Floats, vary: npt.NDArray[np.bool_], theirs: Floats, others_vary: npt.NDArray[np.bool_]) -> Floats:
    return np.where(vary[:, None] | others_vary, np.clip(ours @ theirs.T, -1.0, 1.0), np.nan)


def _centered(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """Rows less their mean, 0 where nothing is present; a row of equal values becomes exactly 0."""
    mean = np.sum(values, axis=1, where=present) / np.maximum(present.sum(axis=1), 1)
    lowest = np.min(values, axis=1, where=present, initial=np.inf)
    highest = np.max(values, axis=1, where=present, initial=-np.inf)
    return np.where(present & (lowest < highest)[:, None], values - mean[:, None], 0.0)
