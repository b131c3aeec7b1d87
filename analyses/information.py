"""How much the state at each step tells about the class: mutual information of a label and a continuous state.

Nearest neighbors among the samples, after Ross 2014; ties after Gao et al. 2017, so that states with few values are
measured rightly too. With dozens of samples in dozens of dimensions no estimate of mutual information is good: the same
estimate with shuffled labels stands beside it, and shows what is bias.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from numba import njit
from scipy.special import digamma

from hiddenscope.analyses.probes import codes_of
from hiddenscope.trace import as_trace

NEIGHBORS = 3
MOST_SAMPLES = 256


def label_information(
    trace: xr.DataArray,
    labels: npt.ArrayLike | None = None,
    *,
    n_neighbors: int = NEIGHBORS,
    n_shuffles: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Mutual information of the class and the state of all units, in nats, at each step of each epoch.

    For each sample i, d_i is the distance to its ``n_neighbors``-th nearest among the samples of its class; of the
    others, k_i of its class and m_i in all lie within d_i. With N samples, N_i of them of the class of i:
    I = psi(N) + mean of psi(k_i) - psi(N_i) - psi(m_i). Without ties, k_i is ``n_neighbors``, and this is Ross's
    estimate. It may be slightly negative, and cannot be far above the entropy of the labels.

    Args:
        trace: dims (epoch, step, unit, sample); samples with NaN at a step are left out there. More than
            `MOST_SAMPLES` samples are thinned, evenly within each class.
        labels: class of each sample; default: the coordinate ``label``.
        n_neighbors: the more, the less noise and the more bias; fewer in classes that have not as many.
        n_shuffles: of the labels; 0 for none.
        seed: of the shuffles, which are the same at all nodes.

    Returns:
        ``information`` (epoch, step), and ``shuffled`` (epoch, step), its mean over shuffles of the labels, where the
        truth is 0. Attribute ``label_entropy``: of the labels, the most that there is to know. NaN where fewer than two
        classes have two samples.

    Raises:
        ValueError: no labels, not one for each sample, or ``n_neighbors`` below 1.
    Source: Ross 2014, equation 2; Gao, Kannan, Oh and Viswanath 2017, algorithm 1, for ties.

    >>> states = np.repeat([0.0, 1.0], 200).reshape(1, 1, 1, 400)
    >>> told = label_information(states, np.repeat([0, 1], 200))
    >>> bool(abs(told.information.item() - np.log(2)) < 0.02)
    True
    """
    named = as_trace(trace)
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    classes = codes_of(named, labels)
    rng = np.random.default_rng(seed)
    kept = _thinned(classes)
    classes, states = classes[kept], named.values[..., kept]
    orders = [np.arange(len(classes)), *(rng.permutation(len(classes)) for _ in range(n_shuffles))]
    relabeled = np.stack([classes[order] for order in orders])
    # How often each digamma is wanted makes a table worth its while.
    table = np.concatenate([[np.nan], digamma(np.arange(1, len(classes) + 1))])
    points = np.ascontiguousarray(states.transpose(1, 0, 3, 2), dtype=np.float64)  # step, epoch, sample, unit
    found = np.stack([_informations(one, relabeled, n_neighbors, table) for one in points], axis=1)
    coords = {key: value for key, value in named.coords.items() if set(value.dims) <= {"epoch", "step"}}
    share = np.bincount(classes) / len(classes)
    dims = ("epoch", "step")
    variables = {"information": (dims, found[..., 0], {"unit": "nats", "long_name": "label-state information"})}
    if n_shuffles:
        variables["shuffled"] = (dims, found[..., 1:].mean(axis=-1), {"unit": "nats", "long_name": "shuffled labels"})
    return xr.Dataset(
        variables,
        coords=coords,
        attrs={
            "label_entropy": float(-(share * np.log(share)).sum()),
            "n_neighbors": n_neighbors,
            "n_shuffles": n_shuffles,
            "seed": seed,
            "n_samples": len(classes),
        },
    )


def _thinned(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of at most `MOST_SAMPLES` samples, evenly taken from each class."""
    if len(classes) <= MOST_SAMPLES:
        return np.arange(len(classes))
    by_class = np.argsort(classes, kind="stable")
    places = np.linspace(0, len(classes) - 1, MOST_SAMPLES).round().astype(np.int64)
    return np.sort(by_class[places])


@njit(cache=True, nogil=True)
def _informations(points, relabeled, n_neighbors, psi):  # type: ignore[no-untyped-def]
    """Estimates (epoch, labeling) from points (epoch, sample, unit) and classes (labeling, sample)."""
    n_epochs, n_samples, n_units = points.shape
    n_labelings = relabeled.shape[0]
    n_classes = relabeled.max() + 1
    result = np.full((n_epochs, n_labelings), np.nan)
    squares = np.empty((n_samples, n_samples))
    order = np.empty((n_samples, n_samples), dtype=np.int64)
    counts = np.empty(n_classes, dtype=np.int64)
    there = np.empty(n_samples, dtype=np.bool_)
    for epoch in range(n_epochs):
        for i in range(n_samples):
            total = 0.0
            for unit in range(n_units):
                total += points[epoch, i, unit]
            there[i] = np.isfinite(total)
        for i in range(n_samples):
            squares[i, i] = -1.0  # itself always comes first
            for j in range(i):
                total = np.inf
                if there[i] and there[j]:
                    total = 0.0
                    for unit in range(n_units):
                        difference = points[epoch, i, unit] - points[epoch, j, unit]
                        total += difference * difference
                squares[i, j] = squares[j, i] = total
        for i in range(n_samples):
            order[i] = np.argsort(squares[i])
        for labeling in range(n_labelings):
            classes = relabeled[labeling]
            counts[:] = 0
            for i in range(n_samples):
                if there[i]:
                    counts[classes[i]] += 1
            used, known = 0, 0
            for c in range(n_classes):
                if counts[c] >= 2:
                    used += counts[c]
                    known += 1
            if known < 2:
                continue
            total = 0.0
            for i in range(n_samples):
                if not there[i] or counts[classes[i]] < 2:
                    continue
                wanted = min(n_neighbors, counts[classes[i]] - 1)
                same, others, reach = 0, 0, np.inf
                for place in range(1, n_samples):
                    j = order[i, place]
                    if squares[i, j] > reach or not there[j]:
                        break
                    if counts[classes[j]] < 2:
                        continue
                    others += 1
                    if classes[j] == classes[i]:
                        same += 1
                        if same == wanted:
                            reach = squares[i, j]
                total += psi[same] - psi[counts[classes[i]]] - psi[others]
            result[epoch, labeling] = psi[used] + total / used
    return result
