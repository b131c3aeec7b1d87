"""The broken line that follows a curve best: where it bends, and what is noise around it.

Bends are placed one after another where they lower the squared error most, each moved again whenever another has found
its place. The number of bends is chosen by the Bayesian information criterion, a bend counting as two parameters (its
place and its slope), with noise that is allowed to be correlated from epoch to epoch. In two segments this is the
"broken stick" of Muggeo 2003; the search over several is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CORRELATIONS = np.append(np.linspace(0.0, 0.95, 20), 0.975)
"""Correlations between the noise of neighboring epochs that are considered; negative ones count as none."""


@dataclass(frozen=True)
class BrokenLine:
    """A continuous line of straight pieces.

    Attributes:
        bends: positions in the curve at which it changes its slope.
        values: the line at each position.
        weights: how likely each of `CORRELATIONS` is for the noise around it; adds up to 1.
        deviation: standard deviation of the noise.
    """

    bends: Ints
    values: Floats
    weights: Floats
    deviation: float


def fit_broken_line(places: npt.ArrayLike, values: npt.ArrayLike, *, most_bends: int, least: int) -> BrokenLine:
    """The best broken line with as many bends as the data support.

    Args:
        places: growing, such as epochs; shape (position,).
        values: finite; shape (position,).
        most_bends: to try.
        least: fewest positions between two bends, and between a bend and either end.

    >>> x = np.arange(40.0)
    >>> noise = np.random.default_rng(0).normal(size=40)
    >>> fit_broken_line(x, np.maximum(x - 25, 0) + 0.1 * noise, most_bends=3, least=3).bends
    array([25])
    """
    x, y = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
    _, bends = search(x, y, most_bends, least)
    scores = [_information(x, y, bends[count, :count]) for count in range(most_bends + 1)]
    chosen = np.sort(bends[int(np.argmin(scores)), : int(np.argmin(scores))])
    design = _design(x, chosen)
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    weights, deviation = _noise(x, y, chosen)
    return BrokenLine(chosen, fitted, weights, deviation)


def search(x: Floats, y: Floats, most_bends: int, least: int) -> tuple[Floats, Ints]:
    """Squared errors (count,) and bends (count, most_bends; -1 where there are fewer), by their count."""
    scaled = (x - x[0]) / (x[-1] - x[0])
    errors, bends = _search(scaled, np.ascontiguousarray(y - y.mean()), most_bends, least)
    return errors, bends


def gain(x: Floats, y: Floats, errors: Floats) -> float:
    """How much better the best broken line is than a constant: the difference of their information criteria."""
    n = len(y)
    flat = float(((y - y.mean()) ** 2).sum())
    if flat == 0:
        return 0.0
    penalties = (1 + 2 * np.arange(len(errors))) * np.log(n)
    floor = np.finfo(np.float64).eps ** 2 * flat
    return float(np.max(n * np.log(flat / np.maximum(errors, floor)) - penalties))


def noise_like(correlation: float, count: int, rng: np.random.Generator) -> Floats:
    """A stationary autoregressive series of order 1, standard deviation 1.

    >>> series = noise_like(0.5, 100_000, np.random.default_rng(0))
    >>> bool(abs(series.std() - 1) < 0.02), bool(abs(np.corrcoef(series[1:], series[:-1])[0, 1] - 0.5) < 0.02)
    (True, True)
    """
    shocks = rng.normal(size=count)
    shocks[1:] *= np.sqrt(1 - correlation**2)
    return cast(Floats, _filtered(shocks, correlation))


def _design(x: Floats, bends: Ints) -> Floats:
    return np.stack([np.ones_like(x), x - x[0], *(np.maximum(x - x[bend], 0.0) for bend in bends)], axis=1)


def _information(x: Floats, y: Floats, bends: Ints) -> float:
    """Bayesian information criterion of a broken line with first-order autoregressive noise."""
    if (bends < 0).any():
        return np.inf
    n, design = len(y), _design(x, bends)
    best = min(n * np.log(max(_whitened(design, y, c)[0], _tiny(y))) - np.log(1 - c**2) for c in CORRELATIONS.tolist())
    return float(best + 2 * len(bends) * np.log(n))


def _noise(x: Floats, y: Floats, bends: Ints) -> tuple[Floats, float]:
    """Weights of `CORRELATIONS`, and the standard deviation of the noise, by restricted maximum likelihood.

    The place of a bend is a parameter like its slope: to first order, moving it adds a step at the bend.
    """
    steps = [(np.arange(len(x)) > bend).astype(np.float64) for bend in bends]
    design = np.column_stack([_design(x, bends), *steps])
    freedom = len(y) - design.shape[1]
    found = [_whitened(design, y, c) for c in CORRELATIONS.tolist()]
    errors = np.maximum([error for error, _ in found], _tiny(y))
    volumes = np.array([volume for _, volume in found])
    likelihood = -0.5 * (freedom * np.log(errors) - np.log(1 - CORRELATIONS**2) + volumes)
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    variances = errors / freedom / (1 - CORRELATIONS**2)
    return weights, float(np.sqrt((weights * variances).sum()))


def _tiny(y: Floats) -> float:
    return float(np.finfo(np.float64).eps ** 2 * max(((y - y.mean()) ** 2).sum(), np.finfo(np.float64).tiny))


def _whitened(design: Floats, y: Floats, correlation: float) -> tuple[float, float]:
    """Squared error of the fit once the noise is made white, and ln det of the whitened design's square."""
    both = np.column_stack([design, y])
    white = both.copy()
    white[1:] -= correlation * both[:-1]
    white[0] *= np.sqrt(1 - correlation**2)
    triangle = np.abs(np.diag(np.linalg.qr(white, mode="r")))
    return float(triangle[-1] ** 2), float(2 * np.log(np.maximum(triangle[:-1], np.finfo(np.float64).tiny)).sum())


@njit(cache=True, nogil=True)
def _filtered(shocks, correlation):  # type: ignore[no-untyped-def]
    series = shocks.copy()
    for i in range(1, len(series)):
        series[i] += correlation * series[i - 1]
    return series


@njit(cache=True, nogil=True)
def _search(x, y, most_bends, least):  # type: ignore[no-untyped-def]
    n = len(x)
    basis, residual, hinge = np.empty((most_bends + 3, n)), np.empty(n), np.empty((3, n))
    errors = np.full(most_bends + 1, np.inf)
    bends = np.full((most_bends + 1, most_bends), -1, dtype=np.int64)
    now, others = np.full(most_bends, -1, dtype=np.int64), np.full(most_bends, -1, dtype=np.int64)
    errors[0] = _best_bend(x, y, now, 0, least, basis, residual, hinge)[0]
    for count in range(1, most_bends + 1):
        error, lowered, place = _best_bend(x, y, now, count - 1, least, basis, residual, hinge)
        if place < 0:
            break
        now[count - 1] = place
        total = error - lowered
        for _ in range(5):
            moved = False
            for which in range(count):
                kept = 0
                for other in range(count):
                    if other != which:
                        others[kept] = now[other]
                        kept += 1
                error, lowered, place = _best_bend(x, y, others, count - 1, least, basis, residual, hinge)
                if place >= 0 and error - lowered < total * (1 - 1e-9):
                    now[which], total, moved = place, error - lowered, True
            if not moved:
                break
        errors[count] = max(total, 0.0)
        bends[count, :count] = now[:count]
    return errors, bends


@njit(cache=True, nogil=True)
def _best_bend(x, y, bends, count, least, basis, residual, hinge):  # type: ignore[no-untyped-def]
    """Squared error with the given bends, how far one more lowers it at best, and where (-1: there is no room)."""
    n = len(x)
    size = 0
    for column in range(count + 2):  # an orthonormal basis of all broken lines with these bends
        for i in range(n):
            if column == 0:
                basis[size, i] = 1.0
            elif column == 1:
                basis[size, i] = x[i]
            else:
                basis[size, i] = max(x[i] - x[bends[column - 2]], 0.0)
        for earlier in range(size):
            overlap = 0.0
            for i in range(n):
                overlap += basis[size, i] * basis[earlier, i]
            for i in range(n):
                basis[size, i] -= overlap * basis[earlier, i]
        length = 0.0
        for i in range(n):
            length += basis[size, i] ** 2
        if length > 1e-18:
            for i in range(n):
                basis[size, i] /= np.sqrt(length)
            size += 1
    residual[:] = y
    for column in range(size):
        overlap = 0.0
        for i in range(n):
            overlap += residual[i] * basis[column, i]
        for i in range(n):
            residual[i] -= overlap * basis[column, i]
    error = 0.0
    for i in range(n):
        error += residual[i] ** 2
    # What is left of each hinge beyond the basis, and of the residual along it, for all places at once: sums over all
    # positions after t of (x - x[t]) v follow from the sums of x v and of v.
    left, along = hinge[0], hinge[1]
    sum_one, sum_x, sum_square = 0.0, 0.0, 0.0
    sum_r, sum_xr = 0.0, 0.0
    for t in range(n - 1, -1, -1):
        left[t] = sum_square - 2 * x[t] * sum_x + x[t] ** 2 * sum_one
        along[t] = sum_xr - x[t] * sum_r
        sum_one += 1.0
        sum_x += x[t]
        sum_square += x[t] ** 2
        sum_r += residual[t]
        sum_xr += x[t] * residual[t]
    hinge[2] = left
    for column in range(size):
        sum_r, sum_xr = 0.0, 0.0
        for t in range(n - 1, -1, -1):
            left[t] -= (sum_xr - x[t] * sum_r) ** 2
            sum_r += basis[column, t]
            sum_xr += x[t] * basis[column, t]
    best, place = 0.0, -1
    for t in range(least, n - least):
        free = left[t] > 1e-9 * hinge[2, t]
        for which in range(count):
            if abs(bends[which] - t) < least:
                free = False
        if free and along[t] ** 2 / left[t] >= best:
            best, place = along[t] ** 2 / left[t], t
    return error, best, place
