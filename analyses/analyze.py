"""All analyses of a run at once: every study, and what takes the model itself; stored in the run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from hiddenscope.analyses.ablation import ablate_steps
from hiddenscope.analyses.clusters import NO_CLUSTER
from hiddenscope.analyses.models import ModelAccess
from hiddenscope.analyses.response_study import REMOVAL, remove_units
from hiddenscope.analyses.silencing import Data, aligned, cross_entropies, pair_of, silence_clusters
from hiddenscope.analyses.studies import Study, all_studies, is_current, make
from hiddenscope.analyses.thinning import evenly
from hiddenscope.errors import HiddenscopeError
from hiddenscope.results import ResultStore
from hiddenscope.run import Run, open_run

if TYPE_CHECKING:
    from torch import Tensor, nn

Model = ModelAccess | Mapping[float, ModelAccess]
ABLATED_STEPS = 64
REMOVED_SEQUENCES = 256
"""Sequences that the model is asked about when units are removed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one analysis of one layer.

    Attributes:
        layer: the layer.
        method: the name under which its result is stored.
        status: ``"made"``, ``"current"`` (it was there already), ``"does not apply"``, or ``"failed"``.
        seconds: that it took.
        note: why it does not apply, or what went wrong.
    """

    layer: str
    method: str
    status: str
    seconds: float = 0.0
    note: str = ""


def analyze(
    run: Run | str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    model: Model | nn.Module | None = None,
    data: Mapping[str, Data] | None = None,
    methods: Sequence[str] | None = None,
    progress: bool = True,
    again: bool = False,
) -> list[Outcome]:
    """Make every analysis of a run and store it there; what is stored and current already is left alone.

    Args:
        run: a run, or where it lies.
        layers: names of layers; default: all.
        model: the trained model, for silencing, removal of units and ablation of steps: a module (put back as it was),
            a `ModelAccess`, or one for each of several epochs, the last of which loses units. Without it these are not
            made.
        data: parts by name that the model is judged on, such as ``{"training": (inputs, labels), "validation": …}``;
            units are removed for the last of them. Default: the run's probe.
        methods: names of those to make; default: all.
        progress: draw a progress bar.
        again: make also those that are current.

    Returns:
        What became of each. A failure is warned of and does not stop the others.

    Raises:
        RunLockedError: another process writes results to this run, such as the page's worker.
        ValueError: an unknown layer or method.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    wanted = list(opened.layers if layers is None else layers)
    unknown = set(wanted) - set(opened.layers)
    if unknown:
        raise ValueError(f"got layer {min(unknown)!r}; this run has {', '.join(map(repr, opened.layers))}")
    studies = [*all_studies(), *([] if model is None else _model_studies(_models(model, opened), data))]
    if methods is not None:
        there = {study.method for study in studies}
        missing = set(methods) - there
        if missing:
            raise ValueError(f"got method {min(missing)!r}; there are {', '.join(sorted(there))}")
        studies = [study for study in studies if study.method in methods]
    jobs = [(layer, study) for layer in wanted for study in studies]
    outcomes = []
    with ResultStore.open(opened.location, writable=True) as store:
        bar = tqdm(jobs, disable=not progress, unit="analysis")
        for layer, study in bar:
            bar.set_description(f"{layer}: {study.title}")
            outcomes.append(_one(study, opened, layer, store, again=again))
    return outcomes


def _one(study: Study, run: Run, layer: str, store: ResultStore, *, again: bool) -> Outcome:
    try:
        if not again and is_current(study, run, layer):
            return Outcome(layer, study.method, "current")
        with _quiet():
            made = make(study, run, layer, store)
    except HiddenscopeError as error:  # such as an extra that is not installed
        return _failed(study, layer, str(error))
    except Exception as error:
        return _failed(study, layer, f"{type(error).__name__}: {' '.join(str(error).split())}")
    if made is None:
        return Outcome(layer, study.method, "does not apply")
    return Outcome(layer, study.method, "made", float(made.attrs["seconds"]))


def _failed(study: Study, layer: str, note: str) -> Outcome:
    warnings.warn(f"the analysis {study.method!r} of layer {layer!r} was not made: {note}", stacklevel=4)
    return Outcome(layer, study.method, "failed", note=note)


@contextmanager
def _quiet() -> Iterator[None]:
    """Advice of single steps and of the libraries below, such as a lowered k, is no news among many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _models(model: Any, run: Run) -> dict[float, ModelAccess]:
    if isinstance(model, Mapping):
        return {float(epoch): _access(one) for epoch, one in sorted(model.items())}
    return {float(run.epochs[-1]): _access(model)}


def _access(model: Any) -> ModelAccess:
    return model if isinstance(model, ModelAccess) else ModelAccess(model)


def _model_studies(models: dict[float, ModelAccess], data: Mapping[str, Data] | None) -> list[Study]:
    """What takes a model, as studies; what they are made with is told by the models' weights."""
    newest = models[max(models)]
    mark = sha256("".join(_mark(one) for one in models.values()).encode()).hexdigest()[:16]

    def silencing(run: Run, layer: str) -> xr.Dataset | None:
        parts = data if data is not None else _probe_part(run)
        if layer not in newest.layers or parts is None:
            return None
        return silence_clusters(newest, layer, parts, _clusters(run, layer))

    def removal(run: Run, layer: str) -> xr.Dataset | None:
        parts = data if data is not None else _probe_part(run)
        if layer not in newest.layers or not parts or run.weights(layer) is None:
            return None
        name = list(parts)[-1]
        return _removed(run, layer, newest, parts[name], name)

    def ablation(run: Run, layer: str) -> xr.Dataset | None:
        part = _probe_part(run)
        if layer not in newest.layers or part is None:
            return None
        inputs, labels = part["probe"]
        steps = run.description.layer(layer).steps
        return ablate_steps(models, layer, inputs, labels, steps=steps[evenly(len(steps), ABLATED_STEPS)])

    parts_told = "probe" if data is None else ", ".join(data)
    return [
        Study("silencing", "silenced units and clusters", silencing, {"model": mark, "data": parts_told}),
        Study(REMOVAL, "removed units", removal, {"model": mark, "data": parts_told, "seed": 0}),
        Study("ablation", "ablated time steps", ablation, {"model": mark, "seed": 0}),
    ]


def _removed(run: Run, layer: str, access: ModelAccess, data: Data, name: str) -> xr.Dataset:
    """Units removed in the orders of their responses: curves of accuracy, and what single ones add to the loss."""
    inputs, labels = _one_batch(data)

    def accuracy(answer: Tensor) -> float:
        logits, truth = aligned(answer, labels)
        return float((logits.argmax(dim=1) == truth).double().mean())

    def likelihood(answer: Tensor) -> float:
        return -float(cross_entropies(*aligned(answer, labels)).mean())

    found = remove_units(
        run, layer, access, inputs, accuracy, worth=likelihood, quantity=f"accuracy ({name})", points=11
    )
    return found.assign_attrs(worth="growth of the loss (nats)")


def _one_batch(data: Data) -> tuple[Any, Any]:
    """At most `REMOVED_SEQUENCES` of two arrays, evenly taken, or the first of some batches."""
    if not pair_of(data):
        batch = next(iter(data))
        return batch[0], batch[1]
    inputs, labels = data
    rows = evenly(len(labels), REMOVED_SEQUENCES)
    return inputs[rows], labels[rows]


def _mark(access: ModelAccess) -> str:
    """A fingerprint of a model's weights."""
    digest = sha256()
    for name, tensor in access.model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()).tobytes())
    return digest.hexdigest()


def _probe_part(run: Run) -> dict[str, Data] | None:
    if run.probe is None or run.labels is None:
        return None
    return {"probe": (run.probe, run.labels.values)}


def _clusters(run: Run, layer: str) -> xr.DataArray:
    """The clusters that were found, else every unit in none."""
    found = run.results.get(layer, "clusters")
    if found is not None:
        return found["unit_cluster"]
    units = run.description.layer(layer).units
    return xr.DataArray([NO_CLUSTER] * len(units), dims="unit", coords={"unit": units})
