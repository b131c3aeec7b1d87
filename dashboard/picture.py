"""One picture of one layer: the embedding, its entropies, and what each unit answers to, as one stored result."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.dashboard.figures.decimate import evenly
from hiddenscope.run import Run
from hiddenscope.trace import TRACE_DIMS

METHOD = "mmphate"
ANEW_NODES = 20_000
"""Up to so many nodes a picture is made anew with every epoch: that takes about two seconds."""
FIDELITY_NEIGHBORS = 10
LIVE_MEASURED = 20_000
"""While a picture follows a training, so many of its newest nodes say how far it can be trusted."""
LEAST_STEPS = 8
"""Fewer clouds of steps than this say little about a unit, so epochs are thinned before steps go below it."""


def node_limit(solver: str) -> int:
    """How many nodes (epoch, step, unit) a solver of `MMPHATE` embeds in a few seconds on one core.

    The exact solver materializes the kernel, of which one block per unit grows with the square of epochs times steps.
    """
    return 5_000 if solver == "exact" else 1_000_000


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


class Painter:
    """Keeps the picture of one layer up to date while it is recorded.

    A short run is embedded anew with every epoch. A longer one takes in its new epochs (`MMPHATE.partial_fit`), so that
    the picture follows at a constant cost and does not jump; when the training has ended it is embedded anew, and from
    then on depends on nothing but the run and the seed.
    """

    def __init__(self) -> None:
        self._estimator: Any = None
        self._epochs = np.zeros(0)
        self._steps = np.zeros(0)
        self._mark = ""
        self._classes: xr.DataArray | None = None

    def paint(self, run: Run, layer: str, *, training: bool = False) -> xr.Dataset:
        """The picture of a layer as it stands.

        Args:
            run: pinned to the commit that is wanted.
            layer: one of its layers.
            training: whether more epochs are expected, so that freshness counts more than exactness.

        Returns:
            ``embedding`` (epoch, step, unit, component), ``intra_step_entropy`` (epoch, step) and
            ``inter_step_entropy`` (epoch, unit) in nats, ``most_active_class`` (epoch, step, unit; -1 where unknown),
            and attributes that say how it was made, what it covers and what was left out.
        """
        from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy

        began = time.time()
        described = run.description.layer(layer)
        epochs = run.epochs
        sizes = {"epoch": len(epochs), "step": len(described.steps), "unit": len(described.units)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            live = training and self._follow(run, layer, sizes)
            fidelity = self._newest_measured(run, layer, sizes) if live else self._begin_anew(run, layer, sizes)
        embedding = named(self._estimator.embedding_)
        assert self._classes is not None
        dataset = xr.Dataset(
            {
                "embedding": embedding,
                "intra_step_entropy": named(intra_step_entropy(embedding)),
                "inter_step_entropy": named(inter_step_entropy(embedding)),
                "most_active_class": self._classes,
            }
        )
        kept = {"step": embedding.sizes["step"], "epoch": embedding.sizes["epoch"]}
        dataset.attrs = {
            "method": METHOD,
            "parameters": parameters(),
            "solver": self._estimator.solver,
            "made_live": live,
            "covers_epoch": float(epochs[-1]),
            "epoch_count": len(epochs),
            "made_from": run.fingerprint(layer),
            "computed_at": time.time(),
            "seconds": time.time() - began,
            "warnings": sorted({str(warning.message) for warning in caught if warning.category is UserWarning}),
            "note": note_of(sizes, kept),
            **fidelity,
        }
        return dataset

    def _follow(self, run: Run, layer: str, sizes: Mapping[str, int]) -> bool:
        """Take in the new epochs; False where the picture has to be made anew."""
        covered, epochs = len(self._epochs), run.epochs
        if (
            self._estimator is None
            or not hasattr(self._estimator, "partial_fit")
            or sizes["epoch"] * sizes["step"] * sizes["unit"] <= ANEW_NODES
            or not 0 < covered < len(epochs)
            or run.fingerprint(layer, count=covered) != self._mark
        ):
            return False
        trace = run.trace(layer, epochs=epochs[covered:], steps=self._steps)
        self._estimator.partial_fit(trace)
        assert self._classes is not None
        self._classes = xr.concat([self._classes, most_active_class(trace)], dim="epoch")
        self._remember(run, layer)
        return True

    def _begin_anew(self, run: Run, layer: str, sizes: Mapping[str, int]) -> dict[str, float]:
        """Embed the whole run; gives the measures of how far the picture can be trusted."""
        from hiddenscope.embeddings.mmphate import MMPHATE

        estimator = MMPHATE(**parameters())
        stride, chosen = thinned(sizes, node_limit(estimator.solver))
        self._steps = run.description.layer(layer).steps[stride]
        trace = run.trace(layer, epochs=run.epochs[chosen], steps=self._steps)
        estimator.fit(trace)
        whole = len(chosen) == sizes["epoch"]
        self._estimator, self._classes = estimator, most_active_class(trace)
        if whole:
            self._remember(run, layer)
        else:
            self._epochs = np.zeros(0)
        return measured(trace, estimator.embedding_)

    def _newest_measured(self, run: Run, layer: str, sizes: Mapping[str, int]) -> dict[str, float]:
        """How far the newest epochs of a picture that follows can be trusted; the cost does not grow with the run."""
        count = max(2, LIVE_MEASURED // (len(self._steps) * sizes["unit"]))
        trace = run.trace(layer, epochs=run.epochs[-count:], steps=self._steps)
        embedding = named(self._estimator.embedding_).sel(epoch=trace["epoch"].values)
        found = measured(trace, embedding, n_queries=500)
        return found | {"fidelity_epochs": float(trace.sizes["epoch"])} if found else {}

    def _remember(self, run: Run, layer: str) -> None:
        self._epochs, self._mark = run.epochs, run.fingerprint(layer)


def rehearse() -> None:
    """Make a picture of nothing, so that all that is compiled on first use is compiled before it is wanted."""
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.embeddings.mmphate import MMPHATE

    noise = np.random.default_rng(0).normal(size=(4, 16, 2 * FIDELITY_NEIGHBORS + 2, 8)).astype(np.float32)
    trace = xr.DataArray(noise, dims=TRACE_DIMS, coords={"epoch": np.arange(4.0)})
    estimator = MMPHATE(**parameters())
    embedding = named(estimator.fit(trace[:3]).embedding_)
    intra_step_entropy(embedding)
    inter_step_entropy(embedding)
    measured(trace[:3], embedding)
    if hasattr(estimator, "partial_fit"):
        estimator.partial_fit(trace[3:])


def picture(run: Run, layer: str) -> xr.Dataset:
    """The picture of a layer of a run, made from all of it at once; see `Painter.paint`."""
    return Painter().paint(run, layer)


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


def _mean(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def measured(trace: xr.DataArray, embedding: object, *, n_queries: int = 2_000) -> dict[str, float]:
    """Neighbors kept within and across steps, trustworthiness, and the rank correlation of distances with those between
    the responses, each with what chance would give, estimated from some of the nodes.

    Where steps have few units, what is kept within a step is left out: any picture keeps most of them.
    """
    from hiddenscope.embeddings.fidelity import (
        distance_rank_correlation,
        neighborhood_preservation,
        trustworthiness,
    )

    few_units = trace.sizes["unit"] < FIDELITY_NEIGHBORS
    if trace.sizes["epoch"] * trace.sizes["step"] < FIDELITY_NEIGHBORS:
        return {}
    picture = named(embedding)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"k = \d+ neighbors of \d+")  # chance is stored beside what is kept
        kept = neighborhood_preservation(trace, picture, k=FIDELITY_NEIGHBORS, n_queries=n_queries)
    found = {
        "fidelity_intra": math.nan if few_units else kept.intra,
        "fidelity_intra_chance": math.nan if few_units else kept.intra_chance,
        "fidelity_inter": kept.inter,
        "fidelity_inter_chance": kept.inter_chance,
    }
    if int(np.isfinite(picture.values).all(axis=-1).sum()) > 2 * FIDELITY_NEIGHBORS:
        trust = trustworthiness(trace, picture, k=FIDELITY_NEIGHBORS, n_queries=n_queries // 10)
        ranks = distance_rank_correlation(trace, picture, n_pairs=10 * n_queries)
        found |= {"fidelity_trustworthiness": trust.value, "fidelity_trustworthiness_chance": trust.chance}
        found |= {"fidelity_rank_correlation": ranks.value, "fidelity_rank_correlation_chance": ranks.chance}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def named(result: object) -> xr.DataArray:
    """A result on a named trace, as it is stored: float32, with the coordinates of its own dims only."""
    assert isinstance(result, xr.DataArray)
    return result.astype(np.float32).reset_coords(drop=True)


def note_of(sizes: Mapping[str, int], kept: Mapping[str, int]) -> str:
    parts = [f"{kept[dim]:,} of {sizes[dim]:,} {dim}s" for dim in ("step", "epoch") if kept[dim] < sizes[dim]]
    return " and ".join(parts)
