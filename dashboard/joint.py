"""Two runs in one picture: embedded together, so that what lies close in it responds alike, in whichever run."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.matching import By, UnitMatch, begin_alike, match_units
from hiddenscope.dashboard.desk import MATCHINGS
from hiddenscope.dashboard.picture import measured, most_active_class, named, node_limit, note_of, parameters, thinned
from hiddenscope.run import Run

METHOD = "joint"


def why_not(first: Run, second: Run, layer: str, matching: str = "auto") -> str:
    """Why two runs cannot be in one picture; empty where they can.

    One picture needs the same probe, for a node is what a unit answers to each sample, and a step that both have;
    units that are matched by number must be the same.
    """
    if layer not in first.layers or layer not in second.layers:
        return f"both runs need a layer {layer!r}; they have {', '.join(first.layers)} and {', '.join(second.layers)}"
    one, two = first.description, second.description
    if one.probe_fingerprint != two.probe_fingerprint or not np.array_equal(one.samples, two.samples):
        return "the runs were recorded on different probe samples; record both with the same probe="
    if not len(_common_steps(first, second, layer)):
        extents = [f"{steps.min()} to {steps.max()}" for steps in (one.layer(layer).steps, two.layer(layer).steps)]
        return f"no step was recorded in both, one has steps of {extents[0]}, the other of {extents[1]}"
    if matching == "number" and not same_units(first, second, layer):
        ours, theirs = (len(described.layer(layer).units) for described in (one, two))
        counts = f"{ours} and {theirs} units" if ours != theirs else f"{ours} units each, but not the same ones"
        return f"matching by number needs the same units in both, and the layers have {counts}; match by response"
    return ""


def same_units(first: Run, second: Run, layer: str) -> bool:
    """Whether the layer has the same units in both runs, so that they can be matched by number."""
    return np.array_equal(first.description.layer(layer).units, second.description.layer(layer).units)


def joint_picture(first: Run, second: Run, layer: str, matching: str = "auto") -> xr.Dataset:
    """Two runs embedded as one: the epochs of the second follow those of the first on the axis of epochs.

    A unit of one run and its match in the other count as one unit, which is tied to itself across epochs and thereby
    across the runs, as MM-PHATE ties the epochs of one run. These ties are all that relates the runs, and they draw a
    pair together even where it responds less alike than others would: how alike a pair is, ``match_correlation`` says.
    Our own choice: the paper embeds one run at a time.

    Args:
        first, second: runs on the same probe samples; their epochs, steps and units may differ.
        layer: the layer, of the same name in both.
        matching: ``"response"``: by `hiddenscope.match_units`, at the last epoch of each run. ``"number"``: unit 3 of
            one with unit 3 of the other. ``"auto"``: by number where both runs began from the same weights
            (`hiddenscope.analyses.matching.begin_alike`), by response otherwise.

    Returns:
        ``embedding`` (epoch, step, unit, component), entropies and ``most_active_class`` as `Painter.paint` gives them,
        of the steps that both runs have. ``epoch`` counts on through both runs; ``run`` (epoch,), 0 or 1, and
        ``epoch_of_run`` (epoch,) tell which epoch of which run that is. ``unit`` counts the units of both, a matched
        pair once; ``unit_of_first`` and ``unit_of_second`` (unit,) are their labels in the two runs, -1 (empty where
        labels are text) where there is none and the nodes are NaN, and ``match_correlation`` (unit,) how alike they
        respond. Attributes ``matching``, ``match_median``, ``match_chance`` and ``began_alike`` tell how they were
        matched, and how well.

    Raises:
        ValueError: the runs cannot be in one picture; the message is `why_not`'s. Or ``matching`` is none of these.
    """
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.embeddings.mmphate import MMPHATE

    if matching not in MATCHINGS:
        raise ValueError(f"units are matched by one of {', '.join(MATCHINGS)}, got {matching!r}")
    problem = why_not(first, second, layer, matching)
    if problem:
        raise ValueError(problem)
    began = time.time()
    counts = [len(run.epochs) for run in (first, second)]
    common = _common_steps(first, second, layer)
    estimator = MMPHATE(**parameters())
    widest = max(len(run.description.layer(layer).units) for run in (first, second))
    sizes = {"epoch": sum(counts), "step": len(common), "unit": widest}
    longest = {**sizes, "epoch": 2 * max(counts)}
    stride, _ = thinned(longest, node_limit(estimator.solver))
    steps = common[stride]
    kept = [thinned({**sizes, "epoch": n, "step": len(steps)}, node_limit(estimator.solver) // 2)[1] for n in counts]
    traces = [
        run.trace(layer, epochs=run.epochs[chosen], steps=steps)
        for run, chosen in zip((first, second), kept, strict=True)
    ]
    alike = _began_alike(first, second, layer, steps)
    by: By = matching if matching in get_args(By) else "number" if alike else "response"  # type: ignore[assignment]
    match = match_units(traces[0], traces[1], by=by)
    epochs = np.concatenate([trace["epoch"].values for trace in traces])
    trace = _joined(traces, match).assign_coords(epoch=np.arange(len(epochs), dtype=float))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        embedding = named(estimator.fit(trace).embedding_)
    return xr.Dataset(
        {
            "embedding": embedding,
            "intra_step_entropy": named(intra_step_entropy(embedding)),
            "inter_step_entropy": named(inter_step_entropy(embedding)),
            "most_active_class": most_active_class(trace),
            "run": ("epoch", np.repeat([0, 1], [len(chosen) for chosen in kept])),
            "epoch_of_run": ("epoch", epochs),
            **_matched(match),
        },
        attrs={
            "method": METHOD,
            "parameters": parameters(),
            "runs": [first.path, second.path],
            "made_from": [first.fingerprint(layer), second.fingerprint(layer)],
            "covers_epoch": float(first.epochs[-1]),
            "computed_at": time.time(),
            "seconds": time.time() - began,
            "note": note_of(sizes, {"step": len(steps), "epoch": len(epochs)}),
            "matching": by,
            "began_alike": alike,
            **{
                name: value
                for name, value in (("match_median", match.median), ("match_chance", match.chance))
                if math.isfinite(value)
            },
            **measured(trace, embedding),
        },
    )


def _common_steps(first: Run, second: Run, layer: str) -> npt.NDArray[Any]:
    ours, theirs = (run.description.layer(layer).steps for run in (first, second))
    return np.asarray(np.intersect1d(ours, theirs))


def _began_alike(first: Run, second: Run, layer: str, steps: npt.NDArray[Any]) -> bool:
    """`begin_alike` of the first epoch that both have recorded, which need not be in the picture."""
    common = np.intersect1d(first.epochs, second.epochs)[:1]
    if not len(common) or not same_units(first, second, layer):
        return False
    return begin_alike(*(run.trace(layer, epochs=common, steps=steps) for run in (first, second)))


def _joined(traces: list[xr.DataArray], match: UnitMatch) -> xr.DataArray:
    """Both traces, one after the other, a row per unit or matched pair; NaN where a run has no such unit."""
    rows = match.rows
    parts = []
    for trace, at in zip(traces, rows.T, strict=True):
        own = trace.isel(unit=np.maximum(at, 0)).assign_coords(unit=np.arange(len(rows)))
        parts.append(own.where(xr.DataArray(at >= 0, dims="unit", coords={"unit": own["unit"]})))
    joined: xr.DataArray = xr.concat(parts, dim="epoch", join="override")
    return joined


def _matched(match: UnitMatch) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Which units of the two runs each row is, and how alike they respond."""
    rows = match.rows
    paired = (rows >= 0).all(axis=1)
    correlation = np.full(len(rows), np.nan, np.float32)
    correlation[paired] = match.correlations.values[rows[paired, 0], rows[paired, 1]]
    found: dict[str, tuple[str, npt.NDArray[Any]]] = {"match_correlation": ("unit", correlation)}
    for name, at in zip(("unit_of_first", "unit_of_second"), rows.T, strict=True):
        labels = np.asarray(match.correlations[name].values)
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            labels = labels.astype(np.str_)
        nothing = "" if labels.dtype.kind == "U" else -1
        found[name] = ("unit", np.where(at >= 0, labels[np.maximum(at, 0)], nothing))
    return found
