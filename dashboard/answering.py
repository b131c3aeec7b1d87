"""How units answer to words at one epoch of a layer, computed once for all viewers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from hiddenscope.analyses.cocluster import UNASSIGNED, CoClusters, co_cluster
from hiddenscope.analyses.expected_response import Events, events_of, run_responses
from hiddenscope.dashboard.remembered import remembered
from hiddenscope.run import Run

KEPT = "as they developed"
CHOSEN = "chosen for this epoch"
CHOICES = (KEPT, CHOSEN, *map(str, range(2, 21)))
"""Which co-clusters of an epoch; a number asks for so many."""


def events_in(run: Run, layer: str) -> Events | None:
    """What the layer reads in the probe; None where that is not known."""
    return remembered(("events", run.path, run.version, layer), lambda: events_of(run, layer))


def responses_at(run: Run, layer: str, epoch: float) -> xr.Dataset | None:
    """The expected responses at one epoch; None where the layer reads nothing that is known."""
    return remembered(("responses", *place(run, layer, epoch)), lambda: run_responses(run, layer, epoch=epoch))


def clusters_at(run: Run, layer: str, epoch: float, choice: str, study: xr.Dataset | None) -> CoClusters:
    """The co-clusters of an epoch.

    Args:
        run: the run.
        layer: one of its layers.
        epoch: one of its epochs.
        choice: of `CHOICES`: those of the study, as many as this epoch asks for, or a number.
        study: the stored study; where it does not cover the epoch, its nearest earlier epoch answers.
    """
    if choice == KEPT and study is not None:
        there = np.isfinite(study["response_size"].values) & (study["epoch"].values <= epoch)
        responses = responses_at(run, layer, epoch)
        if there.any() and responses is not None:
            row = study.isel(epoch=int(np.flatnonzero(there)[-1]))
            if np.array_equal(row["word"].values, responses["word"].values):
                return CoClusters(row["word_cluster"].values, row["unit_cluster"].values)
    count = int(choice) if choice.isdecimal() else None

    def compute() -> CoClusters:
        responses = responses_at(run, layer, epoch)
        if responses is None:
            units = run.description.layer(layer).units.size
            return CoClusters(np.zeros(0, dtype=np.int64), np.full(units, UNASSIGNED))
        return co_cluster(responses["response"].values, n_clusters=count)

    return remembered(("clusters", count, *place(run, layer, epoch)), compute)


def codes_of(responses: xr.Dataset, names: Sequence[str]) -> list[int]:
    """The codes of words by their names, the last name first; those that are not known are left out."""
    codes = dict(zip(responses["name"].values.tolist(), responses["word"].values.tolist(), strict=True))
    return [codes[name] for name in names[::-1] if name in codes]


def place(run: Run, layer: str, epoch: float) -> tuple[object, ...]:
    """What an epoch of a layer is remembered by."""
    return run.path, run.version, layer, epoch
