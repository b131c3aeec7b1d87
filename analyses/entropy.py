"""How spread out a cloud of points is: intra-step and inter-step entropy of an embedding (MM-PHATE, section 5).

Intra-step entropy looks at all units at one (epoch, step): low when the units do alike, high when they differ.
Inter-step entropy looks at one unit over all steps of an epoch: low when the unit hardly moves along the sequence.

The paper does not name its estimator. The choices here, their rules for ties and degenerate clouds and their biases
are ours; see `cloud_entropy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from numba import njit
from scipy.special import digamma, gammaln, polygamma

from hiddenscope.trace import FloatArray, as_embedding, like

Estimator = Literal["knn", "kde", "gaussian", "histogram"]
Unit = Literal["nats", "bits"]

Clouds = npt.NDArray[np.float64]  # (cloud, point, component)
Counts = npt.NDArray[np.int64]  # how many points of each cloud are finite; these come first


def intra_step_entropy(
    embedding: xr.DataArray | npt.ArrayLike,
    *,
    estimator: Estimator = "knn",
    unit: Unit = "nats",
) -> xr.DataArray | FloatArray:
    """Entropy of the cloud of all units at each step of each epoch.

    Args:
        embedding: dims (epoch, step, unit, component), or normalized activations with ``sample`` as last dimension.
        estimator: see `cloud_entropy`.
        unit: of the result, ``"nats"`` or ``"bits"``.

    Returns:
        Array (epoch, step), of the kind that was given; a DataArray says ``unit`` and ``estimator`` in its ``attrs``.

    Raises:
        ValueError: the dims, the estimator or the unit are not valid.

    Source: Xie et al. 2024 (MM-PHATE), captions of the entropy figures.

    >>> corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
    >>> intra_step_entropy(np.stack([corners, 10 * corners])[:, None])[:, 0].round(3)  # 2 ln 10 apart
    array([2.238, 6.843])
    """
    return _entropy_over("unit", embedding, "intra-step entropy", estimator, unit)


def inter_step_entropy(
    embedding: xr.DataArray | npt.ArrayLike,
    *,
    estimator: Estimator = "kde",
    unit: Unit = "nats",
) -> xr.DataArray | FloatArray:
    """Entropy of the cloud of all steps of each unit in each epoch, as an array (epoch, unit).

    Arguments, errors and source as for `intra_step_entropy`, but for the default estimator: successive steps of a unit
    lie along a path, where the nearest neighbors of a step are the steps before and after it. ``"knn"`` then measures
    how fast the unit moves, and falls without end as time is sampled more finely; ``"kde"`` smooths over the path and
    measures how far it reaches.

    >>> path = np.array([0.0, 1.0, 2.0, 4.0])
    >>> both = inter_step_entropy(np.stack([path, 8 * path], axis=-1)[None, :, :, None], unit="bits")
    >>> round(float(both[0, 1] - both[0, 0]), 6)
    3.0
    """
    return _entropy_over("step", embedding, "inter-step entropy", estimator, unit)


def cloud_entropy(clouds: npt.ArrayLike, *, estimator: Estimator = "knn", unit: Unit = "nats") -> FloatArray:
    """Differential entropy of clouds of points.

    - ``"knn"`` (Kozachenko and Leonenko 1987, weighted over neighbors as in Berrett, Samworth and Yuan 2019): the
      average over k = 1 .. K, with weights that add up to 1, of ψ(n) - ψ(k) + ln V_d + d · mean ln r_ik. Here r_ik is
      the distance from point i to its k-th nearest neighbor, V_d the volume of the unit ball, and K the rounded square
      root of n, within 3 .. 20 and below n. See `neighbor_weights` for the weights. Where the k nearest neighbors of
      a point coincide with it, r_ik is the radius of the smallest ball that reaches beyond them, and the number of
      other points in that ball stands in for k. Where there are at least five points per component, distances are
      taken after the principal axes of the cloud have been stretched to equal spread, by at most a factor of 100, and
      the logarithm of the stretch is subtracted. Time grows with the square of the number of points.
    - ``"kde"``: -mean ln p̂_i(x_i), with p̂_i a Gaussian kernel density of all other points (leave-one-out), Scott's
      bandwidth n^(-1/(d+4)) times the covariance of the cloud.
    - ``"gaussian"``: ½ ln((2πe)^d det Σ), less the bias that ln det of a sample covariance has for normal data
      (Ahmed and Gokhale 1989). An upper bound, up to sampling error, for data that are not normal.
    - ``"histogram"``: equal boxes over the range of the cloud, with Scott's width 3.49 sd n^(-1/(d+2)) rounded
      down to divide the range; -Σ q ln q + ln(volume of a box) + (occupied boxes - 1)/(2n), the last term after Miller
      and Madow. Depends on the axes: a rotation changes it.

    Points with a component that is not finite are left out. The result is NaN, never an exception, where too few
    points are left (2 are enough for knn and histogram, kde and gaussian need components + 2) and where the estimate
    would be minus infinity: all points coincide, or, for all but knn, lie in a hyperplane (for the histogram, in one
    that is parallel to axes).

    Scaling all points by c adds d ln c.

    Mean error in nats over many clouds, in 1 / 2 / 3 dimensions, for the histogram with independent components; the
    standard deviation of one estimate is about 0.03 for 2,000 points, 0.15 for 128 and 0.25 for 30:

    ========= =========================== ===========================
    estimator 2,000 points, normal        2,000 points, uniform on a box
    ========= =========================== ===========================
    knn       0.00 / 0.00 / 0.00          0.00 / 0.00 / 0.00
    kde       0.00 / 0.02 / 0.03          0.06 / 0.16 / 0.29
    gaussian  0.00 / 0.00 / 0.00          0.18 / 0.35 / 0.53
    histogram 0.00 / 0.00 / 0.00          0.00 / 0.00 / 0.00
    ========= =========================== ===========================

    ========= =========================== ===========================
    estimator 30 points, normal           30 points, uniform on a box
    ========= =========================== ===========================
    knn       -0.05 / -0.07 / -0.08       0.05 / 0.18 / 0.36
    kde       0.05 / 0.13 / 0.25          0.17 / 0.39 / 0.67
    gaussian  0.00 / 0.00 / 0.00          0.18 / 0.37 / 0.56
    histogram -0.11 / -0.24 / -0.49       -0.07 / -0.14 / -0.23
    ========= =========================== ===========================

    Args:
        clouds: array (..., point, component).
        estimator: one of the names above.
        unit: of the result, ``"nats"`` or ``"bits"``.

    Returns:
        Array of the leading dimensions of ``clouds``.

    Raises:
        ValueError: the estimator or the unit is not valid, or the points have no component.
    """
    points = np.asarray(clouds, dtype=np.float64)
    if points.ndim < 2:
        raise ValueError(f"clouds need the dims (..., point, component), got an array of shape {points.shape}")
    if points.shape[-1] == 0:
        raise ValueError("clouds need at least one component, got 0")
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator must be one of {', '.join(get_args(Estimator))}, got {estimator!r}")
    if unit not in get_args(Unit):
        raise ValueError(f"unit must be 'nats' or 'bits', got {unit!r}")
    flat, counts = _finite_first(points.reshape(math.prod(points.shape[:-2]), *points.shape[-2:]))
    estimate = _ESTIMATORS[estimator](flat, counts)
    return np.asarray(estimate if unit == "nats" else estimate / np.log(2.0)).reshape(points.shape[:-2])


def _entropy_over(
    cloud_dim: Literal["unit", "step"],
    embedding: xr.DataArray | npt.ArrayLike,
    name: str,
    estimator: Estimator,
    unit: Unit,
) -> xr.DataArray | FloatArray:
    if isinstance(embedding, xr.DataArray) and "sample" in embedding.dims and "component" not in embedding.dims:
        embedding = embedding.rename(sample="component")
    nodes = as_embedding(embedding)
    kept = ("epoch", "step") if cloud_dim == "unit" else ("epoch", "unit")
    clouds = nodes.transpose(*kept, cloud_dim, "component").values
    return like(
        embedding,
        xr.DataArray(
            cloud_entropy(clouds, estimator=estimator, unit=unit),
            dims=kept,
            coords={name: value for name, value in nodes.coords.items() if set(value.dims) <= set(kept)},
            name=name.replace("-", "_").replace(" ", "_"),
            attrs={"long_name": name, "unit": unit, "estimator": estimator},
        ),
    )


def _finite_first(clouds: Clouds) -> tuple[Clouds, Counts]:
    finite = np.asarray(np.isfinite(clouds).all(axis=2))
    if not finite.all():
        order = np.argsort(~finite, axis=1, kind="stable")
        clouds = np.where(finite[:, :, None], clouds, 0.0)
        clouds = np.take_along_axis(clouds, order[:, :, None], axis=1)
    return np.ascontiguousarray(clouds), finite.sum(axis=1)


@lru_cache(maxsize=1024)
def neighbor_weights(n_points: int, n_components: int) -> FloatArray:
    """Weight of each k = 1 .. K in the ``knn`` estimate: the best balance of its noise and its boundary bias.

    The noise of ln r_k has the covariance ψ'(max(j, k))/n between two neighbors j and k, since volumes between
    successive neighbors of a Poisson process are independent. A ball that sticks out over the edge of the cloud makes
    the estimate too large, in proportion to the expected radius, Γ(k + 1/d)/Γ(k) · n^(-1/d). The weights minimize
    the noise plus the square of half that bias, and add up to 1. The more points, the more the bias is taken out;
    with few points, or in one dimension, what is left is nearly the plain estimate with k = K.

    >>> neighbor_weights(30, 3).round(2)
    array([ 0.25,  0.41,  0.49,  0.56, -0.71])
    """
    ranks = np.arange(1, min(n_points - 1, max(3, min(20, round(np.sqrt(n_points))))) + 1)
    noise = polygamma(1, np.maximum.outer(ranks, ranks)) / n_points
    radius = np.exp(gammaln(ranks + 1 / n_components) - gammaln(ranks)) * n_points ** (-1 / n_components)
    weights = np.linalg.solve(noise + np.outer(radius, radius) / 4, np.ones(len(ranks)))
    return np.asarray(weights / weights.sum())


def _knn(clouds: Clouds, counts: Counts) -> FloatArray:
    n_points, n_components = clouds.shape[1:]
    log_ball = n_components / 2 * np.log(np.pi) - gammaln(n_components / 2 + 1)
    psi = np.concatenate([[-np.inf], digamma(np.arange(1, n_points + 1))])
    result = np.full(len(clouds), np.nan)
    for n in np.unique(counts[counts > 1]).tolist():  # one pass when no point is missing
        chosen = counts == n
        stretch, log_stretch = _stretch(clouds[chosen, :n])
        result[chosen] = _knn_terms(clouds[chosen, :n], stretch, neighbor_weights(n, n_components), psi) - log_stretch
    return np.asarray(log_ball + result)


def _stretch(clouds: Clouds) -> tuple[Clouds, FloatArray]:
    """One matrix per cloud that evens out the spread of its principal axes, and the logarithm of its determinant."""
    n_clouds, n, n_components = clouds.shape
    if n < 5 * n_components:  # too few points to tell the axes of a law from the axes of a sample
        return np.tile(np.eye(n_components), (n_clouds, 1, 1)), np.zeros(n_clouds)
    centered = clouds - clouds.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centered.transpose(0, 2, 1) @ centered)
    spread = np.sqrt(np.maximum(values, 0.0))
    spread = np.maximum(spread, spread[:, -1:] / 100)
    factors = np.divide(spread[:, -1:], spread, out=np.ones_like(spread), where=spread > 0)
    return np.ascontiguousarray(vectors * factors[:, None, :]), np.log(factors).sum(axis=1)


@njit(cache=True, nogil=True)
def _knn_terms(clouds, stretch, weights, psi):  # type: ignore[no-untyped-def]
    """ψ(n) + weighted mean over points i and neighbors k of (d ln r_ik - ψ(k)), per cloud."""
    n_clouds, n, n_components = clouds.shape
    points = np.empty((n, n_components))
    result = np.empty(n_clouds)
    squares = np.empty(n)
    nearest = np.empty(len(weights))
    last = len(weights) - 1
    for c in range(n_clouds):
        for i in range(n):  # by hand, not by BLAS: points that coincide must go on to do so, to the last bit
            for component in range(n_components):
                value = 0.0
                for axis in range(n_components):
                    value += clouds[c, i, axis] * stretch[c, axis, component]
                points[i, component] = value
        total = 0.0
        for i in range(n):
            nearest[:] = np.inf
            for j in range(n):
                square = 0.0
                for component in range(n_components):
                    difference = points[i, component] - points[j, component]
                    square += difference * difference
                squares[j] = square
                if j != i and square < nearest[last]:
                    place = last
                    while place > 0 and nearest[place - 1] > square:
                        nearest[place] = nearest[place - 1]
                        place -= 1
                    nearest[place] = square
            beyond, inside = np.inf, -1  # the smallest ball that is not a point, and how many others lie in it
            if nearest[0] == 0.0:
                for j in range(n):
                    if 0.0 < squares[j] < beyond:
                        beyond = squares[j]
                for j in range(n):
                    if squares[j] <= beyond:
                        inside += 1
            for k in range(last + 1):
                if nearest[k] > 0.0:
                    total += weights[k] * (0.5 * n_components * np.log(nearest[k]) - psi[k + 1])
                else:
                    total += weights[k] * (0.5 * n_components * np.log(beyond) - psi[inside])
        result[c] = psi[n] + total / n if np.isfinite(total) else np.nan  # infinite when all points coincide
    return result


def _gaussian(clouds: Clouds, counts: Counts) -> FloatArray:
    n_components = clouds.shape[2]
    log_det, _ = _covariance(clouds, counts)
    freedom = np.maximum(counts - 1, n_components)[:, None] - np.arange(n_components)
    bias = digamma(freedom / 2).sum(axis=1) - n_components * np.log(np.maximum(counts - 1, 1) / 2)
    return cast(FloatArray, 0.5 * (n_components * np.log(2 * np.pi * np.e) + log_det - bias))


def _covariance(clouds: Clouds, counts: Counts) -> tuple[FloatArray, FloatArray]:
    """Log-determinant of each cloud's covariance (NaN where it is singular) and the points in units of its root."""
    n_points, n_components = clouds.shape[1:]
    present = (np.arange(n_points) < counts[:, None])[:, :, None]
    centered = np.where(present, clouds - clouds.sum(axis=1, keepdims=True) / np.maximum(counts, 1)[:, None, None], 0.0)
    covariance = centered.transpose(0, 2, 1) @ centered / np.maximum(counts - 1, 1)[:, None, None]
    values, vectors = np.linalg.eigh(covariance)
    # Rounding leaves eigenvalues of this relative size where the true ones are 0.
    floor = np.finfo(np.float64).eps * max(n_points, n_components) * values[:, -1]
    regular = (counts >= n_components + 2) & (values[:, 0] > floor)
    values = np.where(regular[:, None], values, np.nan)
    whitened = centered @ (vectors / np.sqrt(values)[:, None, :])
    return np.log(values).sum(axis=1), whitened


def _kde(clouds: Clouds, counts: Counts) -> FloatArray:
    n_components = clouds.shape[2]
    log_det, whitened = _covariance(clouds, counts)
    width = np.maximum(counts, 1) ** (-1.0 / (n_components + 4))
    log_kernel = n_components * (0.5 * np.log(2 * np.pi) + np.log(width))
    return cast(FloatArray, 0.5 * log_det + log_kernel + _kde_terms(whitened, counts, width))


@njit(cache=True, nogil=True)
def _kde_terms(whitened, counts, widths):  # type: ignore[no-untyped-def]
    """-mean over points of ln(mean over other points of exp(-½ (distance/width)²)), per cloud."""
    n_clouds, n_points, n_components = whitened.shape
    result = np.full(n_clouds, np.nan)
    exponents = np.empty(n_points)
    for c in range(n_clouds):
        n = counts[c]
        if n < 2 or np.isnan(whitened[c, 0, 0]):
            continue
        scale = -0.5 / widths[c] ** 2
        total = 0.0
        for i in range(n):
            largest = -np.inf
            for j in range(n):
                square = 0.0
                for component in range(n_components):
                    difference = whitened[c, i, component] - whitened[c, j, component]
                    square += difference * difference
                exponents[j] = scale * square
                if j != i and exponents[j] > largest:
                    largest = exponents[j]
            density = 0.0
            for j in range(n):
                if j != i:
                    density += np.exp(exponents[j] - largest)
            total += largest + np.log(density / (n - 1))
        result[c] = -total / n
    return result


def _histogram(clouds: Clouds, counts: Counts) -> FloatArray:
    return cast(FloatArray, _histogram_terms(clouds, counts))


@njit(cache=True, nogil=True)
def _histogram_terms(clouds, counts):  # type: ignore[no-untyped-def]
    n_clouds, n_points, n_components = clouds.shape
    result = np.full(n_clouds, np.nan)
    box = np.empty(n_points, dtype=np.int64)
    for c in range(n_clouds):
        n = counts[c]
        if n < 2:
            continue
        box[:n] = 0
        log_volume = 0.0
        for component in range(n_components):
            values = clouds[c, :n, component]
            low, span = values.min(), values.max() - values.min()
            if span == 0.0:
                log_volume = -np.inf
                break
            boxes = int(np.ceil(span / (3.49 * values.std() * n ** (-1.0 / (n_components + 2)))))
            for i in range(n):
                box[i] = box[i] * boxes + min(int((values[i] - low) / span * boxes), boxes - 1)
            log_volume += np.log(span / boxes)
        if not np.isfinite(log_volume):
            continue
        occupied = np.sort(box[:n])
        entropy, run, n_occupied = 0.0, 1, 0
        for i in range(n):
            if i + 1 < n and occupied[i + 1] == occupied[i]:
                run += 1
            else:
                entropy -= run / n * np.log(run / n)
                n_occupied += 1
                run = 1
        result[c] = entropy + log_volume + (n_occupied - 1) / (2.0 * n)
    return result


_ESTIMATORS: dict[str, Callable[[Clouds, Counts], FloatArray]] = {
    "knn": _knn,
    "kde": _kde,
    "gaussian": _gaussian,
    "histogram": _histogram,
}
