"""The broken line that follows a curve best, and how much better it does so than noise around a constant.

Bends are placed one after another where they lower the squared error most, each moved again whenever another has found
its place. The number of bends is chosen by the Bayesian information criterion, a bend counting as two parameters (its
place and its slope). In two segments this is the "broken stick" of Muggeo 2003; the search over several is ours.

Noise is Gaussian, and each epoch's depends on the two before it: an autoregressive series whose two poles lie between 0
and 0.975. So it may be white, wander, or be as smooth as a curve by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POLES = np.append(np.linspace(0.0, 0.95, 20), 0.975)
"""Values of the larger pole that are considered: the correlation of neighboring epochs, if the other pole is 0."""
SMALLER_POLES = np.array([0.0, 0.3, 0.6, 0.8, 0.9])
"""Values of the other pole, which makes the noise smooth."""


@dataclass(frozen=True)
class BrokenLine:
    """A continuous line of straight pieces.

    Attributes:
        bends: positions in the curve at which it changes its slope.
        values: the line at each position.
        changes: of each piece, from its beginning to its end.
        errors: standard error of each change.
        correlation: of the noise around the line between neighboring positions.
        gain: how much better the line is than a constant, each with the noise that fits it best: the difference of
            their Bayesian information criteria.
        noise: how likely each pair of `POLES` and `SMALLER_POLES` is if all of the curve is noise; adds up to 1.
    """

    bends: Ints
    values: Floats
    changes: Floats
    errors: Floats
    correlation: float
    gain: float
    noise: Floats


def fit_broken_line(
    places: npt.ArrayLike, values: npt.ArrayLike, *, most_bends: int, least: int, bends: int | None = None
) -> BrokenLine:
    """The best broken line with as many bends as the data support.

    Args:
        places: growing, such as epochs; shape (position,).
        values: finite, not all equal; shape (position,).
        most_bends: to try.
        least: fewest positions between two bends, and between a bend and either end.
        bends: how many, where that is known; the gain is still that of the best number.

    >>> x = np.arange(40.0)
    >>> noise = np.random.default_rng(0).normal(size=40)
    >>> fit_broken_line(x, np.maximum(x - 25, 0) + 0.1 * noise, most_bends=3, least=3).bends
    array([25])
    """
    x, y = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
    center, scale = float(y.mean()), float(y.std())
    x, y = (x - x[0]) / (x[-1] - x[0]), (y - center) / scale
    _, found = search(x, y, most_bends, least)
    lines = [np.sort(found[count, :count]) for count in range(most_bends + 1) if (found[count, :count] >= 0).all()]
    as_constant = _fits(np.ones((len(x), 1)), y)
    as_line = [_fits(np.linalg.qr(_design(x, line))[0], y) for line in lines]
    scores = [float(fit.min() + (1 + 2 * count) * np.log(len(x))) for count, fit in enumerate(as_line)]
    chosen = int(np.argmin(scores)) if bends is None else min(bends, len(lines) - 1)
    row, column = np.unravel_index(int(as_line[chosen].argmin()), as_line[chosen].shape)
    larger, smaller = float(POLES[row]), float(SMALLER_POLES[column])
    line, changes, errors = _line(x, y, lines[chosen], larger, smaller)
    likely = np.exp(-0.5 * (as_constant - as_constant.min()))
    return BrokenLine(
        bends=lines[chosen],
        values=center + scale * line,
        changes=scale * changes,
        errors=scale * errors,
        correlation=(larger + smaller) / (1 + larger * smaller),
        gain=float(as_constant.min() - min(scores)),
        noise=likely / likely.sum(),
    )


def search(x: Floats, y: Floats, most_bends: int, least: int) -> tuple[Floats, Ints]:
    """Squared errors (count,) and bends (count, most_bends; -1 where there are fewer), by their count."""
    scaled = (x - x[0]) / (x[-1] - x[0])
    errors, bends = _search(scaled, np.ascontiguousarray(y - y.mean()), most_bends, least)
    return errors, bends


def noise_like(larger: float, count: int, rng: np.random.Generator, *, smaller: float = 0.0) -> Floats:
    """A stationary autoregressive series with these two poles, standard deviation 1.

    With one pole, that is the correlation of neighboring values.

    >>> series = noise_like(0.5, 100_000, np.random.default_rng(0))
    >>> bool(abs(series.std() - 1) < 0.02), bool(abs(np.corrcoef(series[1:], series[:-1])[0, 1] - 0.5) < 0.02)
    (True, True)
    """
    inner = 1 / (1 - smaller**2)  # variance of the series that the larger pole is driven by
    both = inner / (1 - larger * smaller)  # covariance of that with what comes out
    outer = (inner + 2 * larger * smaller * both) / (1 - larger**2)
    first = rng.normal(size=2)
    start = np.sqrt(inner) * first[0]
    begin = both / inner * start + np.sqrt(outer - both**2 / inner) * first[1]
    return cast(Floats, _filtered(rng.normal(size=count), start, begin, larger, smaller) / np.sqrt(outer))


def _design(x: Floats, bends: Ints) -> Floats:
    return np.stack([np.ones_like(x), x - x[0], *(np.maximum(x - x[bend], 0.0) for bend in bends)], axis=1)


def _line(x: Floats, y: Floats, bends: Ints, larger: float, smaller: float) -> tuple[Floats, Floats, Floats]:
    """The line by generalized least squares, the change of each piece, and its standard error."""
    design = _design(x, bends)
    both = np.column_stack([design, y])
    for pole in (smaller, larger):
        white = both.copy()
        white[1:] -= pole * both[:-1]
        white[0] *= np.sqrt(1 - pole**2)
        both = white
    basis, triangle = np.linalg.qr(both[:, :-1])
    inverse = np.linalg.inv(triangle)
    slopes = inverse @ (basis.T @ both[:, -1])
    rest = both[:, -1] - both[:, :-1] @ slopes
    deviation = np.sqrt(rest @ rest / (len(y) - len(slopes)))
    ends = x[[0, *bends.tolist(), len(x) - 1]]
    pieces = np.column_stack([np.zeros(len(bends) + 1), np.tri(len(bends) + 1)]) * np.diff(ends)[:, None]
    return design @ slopes, pieces @ slopes, deviation * np.linalg.norm(pieces @ inverse, axis=1)


@njit(cache=True, nogil=True)
def _filtered(shocks, start, begin, larger, smaller):  # type: ignore[no-untyped-def]
    series = np.empty_like(shocks)
    inner, outer = start, begin
    for i in range(len(shocks)):
        series[i] = outer
        inner = smaller * inner + shocks[i]
        outer = larger * outer + inner
    return series


def _fits(basis: Floats, y: Floats) -> Floats:
    """-2 ln likelihood, up to a constant, of a curve near a line of the basis, for each pair of poles."""
    return np.asarray(_likelihoods(np.column_stack([basis, y]), POLES, SMALLER_POLES))


@njit(cache=True, nogil=True)
def _likelihoods(columns, larger, smaller):  # type: ignore[no-untyped-def]
    n, size = columns.shape
    found = np.full((len(larger), len(smaller)), np.inf)
    least = 1e-14 * (columns[:, -1] ** 2).sum()
    for b in range(len(smaller)):
        white = columns.copy()
        white[1:] -= smaller[b] * columns[:-1]
        white[0] *= np.sqrt(1 - smaller[b] ** 2)
        now, before, across = white[1:].T @ white[1:], white[:-1].T @ white[:-1], white[1:].T @ white[:-1]
        across = across + across.T
        for a in range(len(larger)):
            pole = larger[a]
            if pole < smaller[b]:
                continue
            products = now - pole * across + pole**2 * before
            for i in range(size):
                for j in range(size):
                    products[i, j] += (1 - pole**2) * white[0, i] * white[0, j]
            for k in range(size - 1):  # elimination leaves the squared error in the last corner
                for i in range(k + 1, size):
                    factor = products[i, k] / products[k, k]
                    for j in range(k + 1, size):
                        products[i, j] -= factor * products[k, j]
            error = max(products[-1, -1], least)
            found[a, b] = n * np.log(error) - np.log(1 - pole**2) - np.log(1 - smaller[b] ** 2)
    return found


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
