"""What a linear readout could tell from the state at each step of each epoch: linear probes, cross-validated.

The probe is a linear discriminant analysis with shrinkage, fitted anew at every (epoch, step) on the probe samples.
MM-PHATE (version 2) compares its entropies with "linear probes" without saying which; this choice is ours: it has a
closed form, so that tens of thousands of fits take seconds.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.trace import as_trace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHRINKAGE = 0.1
_LEAST_SPREAD = 1e-6  # of a unit, relative to the widest: below it is rounding
_CHANCE_STEPS, _CHANCE_EPOCHS, _CHANCE_SHUFFLES = 8, 32, 5


def probe_accuracy(
    trace: xr.DataArray, labels: npt.ArrayLike | None = None, *, n_folds: int = 5, seed: int = 0
) -> xr.Dataset:
    """Share of held-out samples whose class a linear readout of the state tells, at each step of each epoch.

    Units are standardized over the samples. Each class has its mean, all share one covariance, shrunk by `SHRINKAGE`
    towards a multiple of the identity (Friedman 1989); a state belongs to the class whose mean is nearest in that
    metric, all classes being equally likely beforehand. Folds are stratified by class; each sample is judged once, by
    a probe that has not seen its label.

    Args:
        trace: dims (epoch, step, unit, sample); samples with NaN at a step are left out there.
        labels: class of each sample; default: the coordinate ``label``.
        n_folds: at most; as many as the smallest class has samples, at least 2.
        seed: of the folds, and of the shuffles behind the chance level.

    Returns:
        ``accuracy`` (epoch, step); NaN where fewer than two classes have two samples. Attributes ``chance``,
        ``chance_low`` and ``chance_high``: mean, 5th and 95th percentile of the accuracy with shuffled labels, over
        some of the nodes: what a single node may reach by luck.

    Raises:
        ValueError: no labels, not one for each sample, or fewer than 2 folds.

    >>> states = np.repeat(np.eye(2), 4, axis=1).reshape(1, 1, 2, 8)
    >>> float(probe_accuracy(states, [0, 0, 0, 0, 1, 1, 1, 1]).accuracy.item())
    1.0
    """
    named = as_trace(trace)
    classes = codes_of(named, labels)
    if n_folds < 2:
        raise ValueError(f"cross-validation needs at least 2 folds, got {n_folds}")
    rng = np.random.default_rng(seed)
    states = named.values
    found = np.full(states.shape[:2], np.nan)
    for step in range(states.shape[1]):
        _fill(found[:, step], states[:, step], classes, n_folds, np.random.default_rng([seed, step]))
    chance = _chance(states, classes, n_folds, rng)
    coords = {key: value for key, value in named.coords.items() if set(value.dims) <= {"epoch", "step"}}
    return xr.Dataset(
        {"accuracy": (("epoch", "step"), found, {"long_name": "accuracy of a linear probe"})},
        coords=coords,
        attrs={
            "chance": float(np.mean(chance)) if chance.size else np.nan,
            "chance_low": float(np.quantile(chance, 0.05)) if chance.size else np.nan,
            "chance_high": float(np.quantile(chance, 0.95)) if chance.size else np.nan,
            "n_folds": n_folds,
            "seed": seed,
            "shrinkage": SHRINKAGE,
        },
    )


def codes_of(trace: xr.DataArray, labels: npt.ArrayLike | None) -> Ints:
    """Labels as 0, 1, …, in the order of the classes.

    Raises:
        ValueError: there are none, or not one for each sample.
    """
    if labels is None:
        if "label" not in trace.coords:
            raise ValueError("the trace has no coordinate 'label'; give labels=")
        labels = trace["label"].values
    given = np.asarray(labels)
    if given.shape != (trace.sizes["sample"],):
        raise ValueError(f"expected a label for each of {trace.sizes['sample']} samples, got shape {given.shape}")
    return cast(Ints, np.unique(given, return_inverse=True)[1].astype(np.int64))


def _fill(into: Floats, states: npt.NDArray[Any], classes: Ints, n_folds: int, rng: np.random.Generator) -> None:
    """Accuracies (epoch,) of the states (epoch, unit, sample) of one step; epochs with the same samples together."""
    present = np.isfinite(states).all(axis=1)
    patterns, members = np.unique(present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(members.ravel() == number)
        kept = pattern & np.isin(classes, np.flatnonzero(np.bincount(classes[pattern], minlength=1) >= 2))
        if len(np.unique(classes[kept])) < 2:
            continue
        points = states[rows][:, :, kept].transpose(0, 2, 1).astype(np.float64)
        into[rows] = _accuracy(points, np.unique(classes[kept], return_inverse=True)[1], n_folds, rng)


def _accuracy(points: Floats, classes: Ints, n_folds: int, rng: np.random.Generator) -> Floats:
    """Cross-validated accuracy (epoch,) for points (epoch, sample, unit)."""
    points = _reduced(_standardized(points))
    folds = _folds(classes, min(n_folds, int(np.bincount(classes).min())), rng)
    right = np.zeros(len(points))
    for fold in range(folds.max() + 1):
        held = folds == fold
        right += (_classify(points[:, ~held], classes[~held], points[:, held]) == classes[held]).sum(axis=1)
    return np.asarray(right / len(classes))


def _standardized(points: Floats) -> Floats:
    centered = points - points.mean(axis=1, keepdims=True)
    spread = centered.std(axis=1, keepdims=True)
    alive = spread > _LEAST_SPREAD * spread.max(axis=2, keepdims=True)
    return np.asarray(np.divide(centered, spread, out=np.zeros_like(centered), where=alive))


def _reduced(points: Floats) -> Floats:
    """With more units than samples: the same distances in as many dimensions as there are samples."""
    if points.shape[2] <= points.shape[1]:
        return points
    values, vectors = np.linalg.eigh(points @ points.transpose(0, 2, 1))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def _folds(classes: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """The fold of each sample: the samples of a class dealt out in turn, going on where the class before stopped."""
    folds = np.empty(len(classes), dtype=np.int64)
    order = np.lexsort((rng.random(len(classes)), classes))
    folds[order] = np.arange(len(classes)) % n_folds
    return folds


def _classify(points: Floats, classes: Ints, asked: Floats) -> Ints:
    """Classes (epoch, sample) of the asked points, by discriminant analysis of the points (epoch, sample, unit)."""
    n_classes, dims = int(classes.max()) + 1, points.shape[2]
    members = np.eye(n_classes)[classes]
    counts = members.sum(axis=0)
    means = members.T @ points / counts[:, None]
    within = points - means[:, classes]
    covariance = within.transpose(0, 2, 1) @ within / max(1, len(classes) - n_classes)
    level = np.trace(covariance, axis1=1, axis2=2) / dims
    ridge = SHRINKAGE * level + 1e-6 * np.maximum((points**2).mean(axis=(1, 2)), np.finfo(np.float64).tiny)
    metric = (1 - SHRINKAGE) * covariance + ridge[:, None, None] * np.eye(dims)
    weights = np.linalg.solve(metric, means.transpose(0, 2, 1))  # (epoch, unit, class)
    offsets = 0.5 * (means.transpose(0, 2, 1) * weights).sum(axis=1)
    return cast(Ints, (asked @ weights - offsets[:, None, :]).argmax(axis=2))


def _chance(states: npt.NDArray[Any], classes: Ints, n_folds: int, rng: np.random.Generator) -> Floats:
    """Accuracies with shuffled labels at some nodes."""
    epochs = np.unique(np.linspace(0, states.shape[0] - 1, _CHANCE_EPOCHS).round().astype(np.int64))
    steps = np.unique(np.linspace(0, states.shape[1] - 1, _CHANCE_STEPS).round().astype(np.int64))
    found = np.full((len(steps), _CHANCE_SHUFFLES, len(epochs)), np.nan)
    for row, step in enumerate(steps):
        for shuffle in range(_CHANCE_SHUFFLES):
            _fill(found[row, shuffle], states[epochs, step], rng.permutation(classes), n_folds, rng)
    return cast(Floats, found[np.isfinite(found)])
