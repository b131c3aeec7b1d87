"""Which units develop alike: their inter-step entropy trajectories, clustered by dynamic time warping.

MM-PHATE (Xie et al. 2024) clusters units in this way without saying how many clusters or by which algorithm. Ours:
average linkage on warping distances, and the number of clusters with the best silhouette.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from numba import njit
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_SILHOUETTE = 0.25
"""Below it there is "no substantial structure" (Kaufman and Rousseeuw 1990): all units are one cluster."""
NO_CLUSTER = ""
"""The name for units without a single known value."""


@dataclass(frozen=True)
class UnitClusters:
    """Groups of units.

    Attributes:
        names: dims (unit,): the name of each unit's cluster, ``"A"``, ``"B"``, …; empty for a unit without any value.
        centers: dims (cluster, epoch): the mean trajectory of each cluster.
        silhouette: mean silhouette of the units, -1 to 1; NaN for a single cluster.
        distances: warping distance between each two units, dims (unit, other_unit).
    """

    names: xr.DataArray
    centers: xr.DataArray
    silhouette: float
    distances: xr.DataArray


def cluster_units(
    trajectories: xr.DataArray,
    *,
    n_clusters: int | None = None,
    most_clusters: int = 8,
    window: int | None = None,
    shape_only: bool = False,
    previous: xr.DataArray | None = None,
) -> UnitClusters:
    """Group units whose trajectories are alike up to small shifts in time.

    Args:
        trajectories: dims (epoch, unit), such as inter-step entropies. Values missing within a trajectory are
            interpolated; a unit without any is in no cluster.
        n_clusters: how many; None for the number with the best silhouette, or 1 where no silhouette reaches
            `LEAST_SILHOUETTE`.
        most_clusters: most to try.
        window: epochs by which warping may shift; None for a tenth of them, at least 1.
        shape_only: compare the trajectories' shapes, each shifted to mean 0 and scaled to deviation 1.
        previous: names from an earlier call. Clusters that share most units with a former one keep its name, new ones
            get names that were not in use.

    Raises:
        ValueError: other dims, more clusters asked for than units, or a negative ``window``.

    >>> rise, fall = np.arange(10.0), np.arange(10.0)[::-1]
    >>> trajectories = xr.DataArray(np.stack([rise, fall, rise + 0.1, fall], axis=1), dims=("epoch", "unit"))
    >>> cluster_units(trajectories).names.values.tolist()
    ['A', 'B', 'A', 'B']
    """
    if set(trajectories.dims) != {"epoch", "unit"}:
        raise ValueError(f"trajectories need dims ('epoch', 'unit'), got {trajectories.dims}")
    named = trajectories.transpose("unit", "epoch")
    values = named.values.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    known = np.isfinite(values).any(axis=1)
    curves = np.array([_filled(curve) for curve in values[known]]).reshape(int(known.sum()), named.sizes["epoch"])
    if n_clusters is not None and not 1 <= n_clusters <= len(curves):
        raise ValueError(f"n_clusters must lie in 1..{len(curves)}, the units with values, got {n_clusters}")
    compared = _standardized(curves) if shape_only else curves
    distances = warping_distances(compared, window=max(1, named.sizes["epoch"] // 10) if window is None else window)
    groups, silhouette = _grouped(distances, n_clusters, most_clusters)
    labels = np.full(len(values), -1, dtype=np.int64)
    labels[known] = groups
    names = _named(labels, named, previous)
    order = sorted(set(names[known].tolist()), key=lambda name: (len(name), name))
    centers = [curves[names[known] == name].mean(axis=0) for name in order]
    everywhere = np.full((len(values), len(values)), np.nan)
    everywhere[np.ix_(known, known)] = distances
    units = {"unit": named["unit"]} if "unit" in named.coords else {}
    epochs = {"epoch": named["epoch"]} if "epoch" in named.coords else {}
    others = {"other_unit": ("other_unit", named["unit"].values)} if units else {}
    return UnitClusters(
        names=xr.DataArray(names, dims="unit", coords=units, name="cluster"),
        centers=xr.DataArray(
            np.array(centers).reshape(len(order), named.sizes["epoch"]),
            dims=("cluster", "epoch"),
            coords={"cluster": np.array(order, dtype=np.str_), **epochs},
            name="center",
            attrs=dict(trajectories.attrs),
        ),
        silhouette=silhouette,
        distances=xr.DataArray(everywhere, dims=("unit", "other_unit"), coords={**units, **others}, name="distance"),
    )


def warping_distances(curves: npt.ArrayLike, *, window: int) -> Floats:
    """Dynamic time warping distance between each two curves.

    The square root of the least sum of squared differences along a monotone path that pairs the epochs of one curve
    with those of the other, never more than ``window`` apart (Sakoe and Chiba 1978). 0 is the Euclidean distance.

    Args:
        curves: shape (curve, epoch), finite.
        window: in epochs.

    Returns:
        Shape (curve, curve), symmetric, diagonal 0.

    >>> warping_distances([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], window=1)[0, 1]
    np.float64(0.0)
    """
    if window < 0:
        raise ValueError(f"window must not be negative, got {window}")
    values = np.ascontiguousarray(curves, dtype=np.float64)
    distances: Floats = _warping(values, window)
    return distances


@njit(cache=True, nogil=True)
def _warping(curves, window):  # type: ignore[no-untyped-def]
    n_curves, n = curves.shape
    result = np.zeros((n_curves, n_curves))
    before, here = np.empty(n + 1), np.empty(n + 1)
    for one in range(n_curves):
        for other in range(one + 1, n_curves):
            before[:] = np.inf
            before[0] = 0.0
            for i in range(n):
                here[:] = np.inf
                for j in range(max(0, i - window), min(n, i + window + 1)):
                    difference = curves[one, i] - curves[other, j]
                    here[j + 1] = difference * difference + min(before[j], before[j + 1], here[j])
                before, here = here, before
            result[one, other] = result[other, one] = np.sqrt(before[n]) if n else 0.0
    return result


def _filled(curve: Floats) -> Floats:
    """A trajectory without gaps: linear between known values, constant beyond them."""
    known = np.isfinite(curve)
    places = np.arange(len(curve))
    return np.asarray(np.interp(places, places[known], curve[known]))


def _standardized(curves: Floats) -> Floats:
    deviation = curves.std(axis=1, keepdims=True)
    return np.asarray((curves - curves.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0))


def _grouped(distances: Floats, n_clusters: int | None, most_clusters: int) -> tuple[Ints, float]:
    """Group number of each curve, and the mean silhouette."""
    n = len(distances)
    one_group = np.zeros(n, dtype=np.int64)
    if n < 2 or n_clusters == 1:
        return one_group, np.nan
    tree = linkage(squareform(distances, checks=False), method="average")
    if n_clusters is not None:
        groups = fcluster(tree, n_clusters, criterion="maxclust").astype(np.int64)
        return groups, _silhouette(distances, groups)
    best, chosen = LEAST_SILHOUETTE, one_group
    for count in range(2, min(most_clusters, n - 1) + 1):
        groups = fcluster(tree, count, criterion="maxclust").astype(np.int64)
        score = _silhouette(distances, groups)
        if score > best:
            best, chosen = score, groups
    return chosen, best if chosen.any() else np.nan


def _silhouette(distances: Floats, groups: Ints) -> float:
    """Mean over curves of (b - a)/max(a, b): a to the own group, b to the nearest other one (Rousseeuw 1987)."""
    members = groups[:, None] == np.unique(groups)
    if members.shape[1] < 2:
        return float("nan")
    sizes = members.sum(axis=0)
    totals = distances @ members
    own = members.argmax(axis=1)
    rows = np.arange(len(groups))
    mine = totals[rows, own] / np.maximum(sizes[own] - 1, 1)
    others = np.where(members, np.inf, totals / sizes).min(axis=1)
    scale = np.maximum(mine, others)
    scores = np.divide(others - mine, scale, out=np.zeros_like(mine), where=scale > 0)
    return float(np.where(sizes[own] > 1, scores, 0.0).mean())


def _named(labels: Ints, named: xr.DataArray, previous: xr.DataArray | None) -> npt.NDArray[np.str_]:
    """Names for group numbers: kept from ``previous`` where most units are shared, else in order of appearance."""
    groups = list(dict.fromkeys(labels[labels >= 0].tolist()))
    given: dict[int, str] = {}
    used: set[str] = set()
    if previous is not None:
        former = previous
        if "unit" in named.coords and "unit" in previous.coords:
            former = previous.reindex(unit=named["unit"], fill_value=NO_CLUSTER)
        if former.sizes["unit"] != len(labels):
            raise ValueError(f"previous names {former.sizes['unit']} units, there are {len(labels)}")
        used = set(np.unique(former.values).tolist()) - {NO_CLUSTER}
        olds = sorted(used)
        shared = np.array([[np.sum((labels == group) & (former.values == old)) for old in olds] for group in groups])
        if shared.size:
            pairs = zip(*linear_sum_assignment(-shared), strict=True)
            given = {groups[row]: olds[column] for row, column in pairs if shared[row, column]}
    fresh = (name for name in _all_names() if name not in used)
    for group in groups:
        if group not in given:
            given[group] = next(fresh)
    return np.array([given.get(label, NO_CLUSTER) for label in labels.tolist()], dtype=np.str_)


def _all_names() -> list[str]:
    """A to Z, then AA, AB and so on."""
    letters = string.ascii_uppercase
    return [*letters, *(first + second for first in letters for second in letters)]
