"""The studies of MM-PHATE's analyses: what is computed from a run alone, and how it is arranged in its results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hiddenscope.analyses.association import associate_with_metrics
from hiddenscope.analyses.clusters import cluster_units
from hiddenscope.analyses.curves import mean_over, picture_of
from hiddenscope.analyses.flow import epoch_change, flow_alignment, flow_expansion
from hiddenscope.analyses.information import label_information
from hiddenscope.analyses.phases import activation_curves, phases_of_all
from hiddenscope.analyses.probes import probe_accuracy
from hiddenscope.analyses.studies import Study
from hiddenscope.analyses.thinning import evenly, thinned_trace
from hiddenscope.run import Run

PROBE_EPOCHS, PROBE_STEPS = 101, 64
PHASE_EPOCHS, PHASE_STEPS = 400, 32
LEAST_SAMPLES = 8


def unit_clusters(run: Run, layer: str) -> xr.Dataset | None:
    """Units grouped by their inter-step entropies over epochs; names are kept as the run grows.

    None where there are fewer than 3 epochs or units.
    """
    if len(run.epochs) < 3 or len(run.description.layer(layer).units) < 3:
        return None
    picture = picture_of(run, layer)
    trajectories = picture["inter_step_entropy"].astype(np.float64).reset_coords(drop=True)
    former = run.results.get(layer, CLUSTERS.method)
    previous = None if former is None else former["unit_cluster"]
    if previous is not None and set(previous["unit"].values) != set(trajectories["unit"].values):
        previous = None
    found = cluster_units(trajectories, previous=previous)
    return xr.Dataset(
        {
            "unit_cluster": found.names.rename("unit_cluster"),
            "center": found.centers,
            "trajectory": trajectories,
        },
        attrs={
            "silhouette": found.silhouette,
            "unit_columns": {"unit_cluster": "cluster"},
            "picture": picture.attrs["picture"],
        },
    )


def phases(run: Run, layer: str) -> xr.Dataset | None:
    """Phases of the entropies and of the geometry of a layer; None where there are too few epochs to have any."""
    from hiddenscope.analyses.phases import FEWEST_EPOCHS

    if len(run.epochs) < FEWEST_EPOCHS:
        return None
    trace, note = thinned_trace(run, layer, epochs=PHASE_EPOCHS, steps=PHASE_STEPS)
    curves = activation_curves(trace)
    stored = run.results.get(layer, "mmphate")
    if stored is not None and stored.attrs.get("made_from") == run.fingerprint(layer):
        epochs = trace["epoch"].values.astype(np.float64)
        for name, variable, dim in (
            ("intra-step entropy (picture)", "intra_step_entropy", "step"),
            ("inter-step entropy (picture)", "inter_step_entropy", "unit"),
        ):
            curves[name] = mean_over(stored[variable], dim).reindex(epoch=epochs)
    found = phases_of_all(curves, n_controls=PHASES_CONTROLS)
    return found.assign_attrs(note=note)


PHASES_CONTROLS = 199


def linear_probes(run: Run, layer: str) -> xr.Dataset | None:
    """Accuracy of a linear probe at every (epoch, step), thinned to `PROBE_EPOCHS` and `PROBE_STEPS`."""
    trace = _labeled(run, layer)
    return None if trace is None else probe_accuracy(trace)


def information(run: Run, layer: str) -> xr.Dataset | None:
    """Mutual information of class and state at every (epoch, step), thinned as in `linear_probes`."""
    trace = _labeled(run, layer)
    return None if trace is None else label_information(trace)


def flow(run: Run, layer: str) -> xr.Dataset | None:
    """How far and how uniformly the picture moves from epoch to epoch; None for a single epoch."""
    if len(run.epochs) < 2:
        return None
    picture = picture_of(run, layer)
    embedding = picture["embedding"].reset_coords(drop=True)
    change = epoch_change(embedding)
    assert isinstance(change, xr.DataArray)
    variables = {
        "change_by_step": change.mean("unit", skipna=True),
        "change_by_unit": change.mean("step", skipna=True),
        "alignment_by_step": flow_alignment(embedding, over="unit"),
        "alignment_by_unit": flow_alignment(embedding, over="step"),
        "expansion_by_step": flow_expansion(embedding, over="unit"),
        "expansion_by_unit": flow_expansion(embedding, over="step"),
    }
    return xr.Dataset(variables).astype(np.float32).assign_attrs(picture=picture.attrs["picture"])


def association(run: Run, layer: str) -> xr.Dataset | None:
    """Rank correlation of the entropies with every metric; None without metrics or with fewer than 8 epochs."""
    metrics = run.metrics()
    if metrics.empty or len(run.epochs) < 8:
        return None
    picture = picture_of(run, layer)
    tables = {
        "intra-step entropy": associate_with_metrics(mean_over(picture["intra_step_entropy"], "step"), metrics),
        "inter-step entropy": associate_with_metrics(mean_over(picture["inter_step_entropy"], "unit"), metrics),
    }
    return arranged(tables).assign_attrs(picture=picture.attrs["picture"])


def arranged(tables: dict[str, pd.DataFrame]) -> xr.Dataset:
    """Tables of `associate_with_metrics` as one dataset, dims (entropy, metric, of)."""
    joined = pd.concat(tables, names=["entropy"])
    return joined.to_xarray()


def _labeled(run: Run, layer: str) -> xr.DataArray | None:
    labels = run.labels
    if labels is None or labels.size < LEAST_SAMPLES or len(np.unique(labels)) < 2:
        return None
    return thinned_trace(run, layer, epochs=PROBE_EPOCHS, steps=PROBE_STEPS)[0]


def epochs_shown(run: Run) -> int:
    """How many epochs the probes look at."""
    return len(evenly(len(run.epochs), PROBE_EPOCHS))


CLUSTERS = Study("clusters", "unit clusters", unit_clusters, live=True)
FLOW = Study("flow", "movement of the picture", flow, live=True)
PHASES = Study("phases", "phases", phases, {"n_controls": PHASES_CONTROLS, "seed": 0}, live=True)
ASSOCIATION = Study("association", "entropy against the metrics", association)
PROBES = Study("linear_probes", "linear probes", linear_probes, {"seed": 0})
INFORMATION = Study("label_information", "label-state information", information, {"seed": 0})
