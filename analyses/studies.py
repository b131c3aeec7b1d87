"""Studies: whatever can be computed from one layer of a recorded run alone, stored beside it under one name.

The live worker makes those that are `live` as the training goes on; ``hiddenscope analyze`` makes all of them. A room
adds its study by a line in `STUDIES`; the module that holds it is imported when it is wanted.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import xarray as xr

from hiddenscope.description import JSON
from hiddenscope.results import ResultStore
from hiddenscope.run import Run

STUDIES: tuple[str, ...] = (
    "hiddenscope.analyses.standard:CLUSTERS",
    "hiddenscope.analyses.standard:FLOW",
    "hiddenscope.analyses.standard:PHASES",
    "hiddenscope.analyses.standard:ASSOCIATION",
    "hiddenscope.analyses.standard:PROBES",
    "hiddenscope.analyses.standard:INFORMATION",
    "hiddenscope.analyses.by_method:BY_METHOD",
    "hiddenscope.analyses.cocluster:COCLUSTER",
    "hiddenscope.analyses.pod:POD_STUDY",
    "hiddenscope.analyses.pod:SEPARABILITY_STUDY",
    "hiddenscope.analyses.excitation:ACTIVATIONS",
    "hiddenscope.analyses.response_study:RESPONSES",
)
"""Where the studies are, each as ``"module:NAME"``, in the order in which they are made."""


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        method: the name it is stored under, such as ``"pod"``.
        title: what it is, in words, for progress bars and menus.
        compute: from a run (pinned to a commit) and one of its layers to what is stored, or None where the study does
            not apply, for example for want of labels.
        parameters: everything else that the result depends on.
        live: whether it is made while the training goes on: seconds at most, for a run of a thousand epochs.
    """

    method: str
    title: str
    compute: Callable[[Run, str], xr.Dataset | None]
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    live: bool = False


def all_studies() -> tuple[Study, ...]:
    """Every study there is; those whose optional packages are missing say so when they are made, not here."""
    found = []
    for place in STUDIES:
        module, _, name = place.partition(":")
        study = getattr(importlib.import_module(module), name)
        assert isinstance(study, Study), place
        found.append(study)
    return tuple(found)


def is_current(study: Study, run: Run, layer: str) -> bool:
    """Whether the stored result was made from exactly what the run holds now."""
    stored = run.results.get(layer, study.method, study.parameters)
    return stored is not None and stored.attrs.get("made_from") == run.fingerprint(layer)


def make(study: Study, run: Run, layer: str, store: ResultStore) -> xr.Dataset | None:
    """Compute a study and store it; None where it does not apply.

    Its attributes tell what it was made from: ``covers_epoch``, ``made_from`` (see `Run.fingerprint`), ``computed_at``
    (seconds since 1970) and ``seconds``.
    """
    began = time.time()
    dataset = study.compute(run, layer)
    if dataset is None:
        return None
    dataset = dataset.assign_attrs(
        title=study.title,
        covers_epoch=float(run.epochs[-1]),
        made_from=run.fingerprint(layer),
        computed_at=time.time(),
        seconds=time.time() - began,
    )
    store.put(layer, study.method, study.parameters, dataset)
    return dataset
