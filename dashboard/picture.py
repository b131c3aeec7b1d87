"""One picture of one layer: the embedding, its entropies, and what each unit answers to, as one stored result."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.dashboard.figures.decimate import evenly
from hiddenscope.run import Run

METHOD = "mmphate"
LEAST_STEPS = 8
"""Fewer clouds of steps than this say little about a unit, so epochs are thinned before steps go below it."""


def node_limit(solver: str) -> int:
    """How many nodes (epoch, step, unit) a solver of `MMPHATE` embeds in a few seconds on one core.

    The exact solver materializes the kernel, of which one block per unit grows with the square of epochs times steps.
    """
    return 5_000 if solver == "exact" else 2_000_000


def parameters() -> dict[str, Any]:
    """What the pictures of the page are made with; the same for every run and viewer."""
    from hiddenscope.embeddings.mmphate import MMPHATE

    chosen: dict[str, Any] = {"n_components": 3, "random_state": 0}
    return chosen | {"n_landmark": 400} if MMPHATE().solver == "exact" else chosen


def thinned(sizes: Mapping[str, int], limit: int) -> tuple[slice, npt.NDArray[np.intp]]:
    """Which steps and epochs to embed so that at most about ``limit`` nodes remain; units are all kept.

    Steps are thinned first, by a stride that is a power of two, so that those chosen now stay chosen as the run grows
    until the stride doubles; when few steps are left, epochs are thinned evenly, first and last kept.

    Args:
        sizes: of the dims epoch, step and unit.
        limit: the number of nodes aimed at.

    >>> thinned({"epoch": 10, "step": 128, "unit": 30}, 6_000)
    (slice(0, None, 8), array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    """
    epochs, steps, units = sizes["epoch"], sizes["step"], sizes["unit"]
    stride = 1
    while -(-steps // stride) * epochs * units > limit and -(-steps // (2 * stride)) >= LEAST_STEPS:
        stride *= 2
    kept = -(-steps // stride)
    return slice(0, None, stride), evenly(epochs, max(2, limit // (kept * units)))


def picture(run: Run, layer: str) -> xr.Dataset:
    """Embed a layer as it stands, and measure the picture.

    Returns:
        ``embedding`` (epoch, step, unit, component), ``intra_step_entropy`` (epoch, step) and ``inter_step_entropy``
        (epoch, unit) in nats, ``most_active_class`` (epoch, step, unit; -1 where unknown), and attributes that say
        how it was made, what it covers and what was left out.
    """
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.embeddings.mmphate import MMPHATE

    began = time.time()
    chosen_parameters = parameters()
    estimator = MMPHATE(**chosen_parameters)
    described = run.description.layer(layer)
    epochs = run.epochs
    sizes = {"epoch": len(epochs), "step": len(described.steps), "unit": len(described.units)}
    stride, chosen = thinned(sizes, node_limit(estimator.solver))
    steps = described.steps[stride]
    trace = run.trace(layer, epochs=epochs[chosen], steps=steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        embedding = _named(estimator.fit_transform(trace))
    dataset = xr.Dataset(
        {
            "embedding": embedding,
            "intra_step_entropy": _named(intra_step_entropy(embedding)),
            "inter_step_entropy": _named(inter_step_entropy(embedding)),
            "most_active_class": most_active_class(trace),
        }
    )
    dataset.attrs = {
        "method": METHOD,
        "parameters": chosen_parameters,
        "solver": estimator.solver,
        "covers_epoch": float(epochs[-1]),
        "epoch_count": len(epochs),
        "made_from": fingerprint(run, layer),
        "computed_at": time.time(),
        "seconds": time.time() - began,
        "warnings": sorted({str(warning.message) for warning in caught if warning.category is UserWarning}),
        "note": _note(sizes, {"step": len(steps), "epoch": len(chosen)}),
    }
    return dataset


def most_active_class(trace: xr.DataArray) -> xr.DataArray:
    """The class on whose samples each node is most active, relative to its mean over all samples.

    Args:
        trace: dims (epoch, step, unit, sample); without a coordinate ``label`` no class is known.

    Returns:
        Integer codes of classes, dims (epoch, step, unit); -1 where unknown.

    >>> trace = xr.DataArray([[[[0.0, 0.1, 0.9]]]], dims=("epoch", "step", "unit", "sample"))
    >>> int(most_active_class(trace.assign_coords(label=("sample", [4, 4, 7]))).item())
    7
    """
    nodes = trace.isel(sample=0, drop=True).reset_coords(drop=True)
    if "label" not in trace.coords:
        return xr.full_like(nodes, -1, dtype=np.int32)
    labels = trace["label"].values
    classes = np.unique(labels)
    means = np.stack([_mean(trace.values[..., labels == label]) for label in classes], axis=-1)
    known = np.isfinite(means).any(axis=-1)
    best = np.where(np.isfinite(means), means, -np.inf).argmax(axis=-1)
    return nodes.copy(data=np.where(known, classes[best], -1).astype(np.int32))


def fingerprint(run: Run, layer: str) -> str:
    """Changes when the run has other epochs, or the newest of them other states; costs reading one epoch."""
    epochs = run.epochs
    digest = hashlib.sha256(epochs.tobytes())
    if len(epochs):
        digest.update(np.ascontiguousarray(run.trace(layer, epochs=epochs[-1]).values).tobytes())
    return digest.hexdigest()[:16]


def _mean(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _named(result: object) -> xr.DataArray:
    """A result on a named trace, as it is stored: float32, with the coordinates of its own dims only."""
    assert isinstance(result, xr.DataArray)
    return result.astype(np.float32).reset_coords(drop=True)


def _note(sizes: Mapping[str, int], kept: Mapping[str, int]) -> str:
    parts = [f"{kept[dim]:,} of {sizes[dim]:,} {dim}s" for dim in ("step", "epoch") if kept[dim] < sizes[dim]]
    return " and ".join(parts)
