"""Relevance in a recorded run: its weights of one epoch, on what its module read, checked against its states."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.models import column_of, recurrent_module
from hiddenscope.analyses.relevance import EPSILON, relevance
from hiddenscope.analyses.unrolled import Floats
from hiddenscope.run import Run

_AGREEMENT = 0.02  # of recorded states, which may be in half precision, with those computed here


def run_relevance(
    run: Run,
    layer: str,
    *,
    unit: int | str,
    sample: int | None = None,
    step: int | None = None,
    epoch: float | None = None,
    epsilon: float = EPSILON,
    conserve: bool = False,
    passes: int = 0,
    dropout: float | None = None,
    random_state: int = 0,
) -> xr.Dataset:
    """`relevance` for a recorded run: its weights of one epoch and the inputs of its probe.

    Args:
        run: with weights, and a probe that the layer reads (or recorded inputs).
        layer: one of its layers.
        unit: label of the unit.
        sample: label of one probe sequence; default all.
        step: where the unit is looked at, a step of the probe; default each sequence's last.
        epoch: whose weights; default the newest.
        epsilon: as for `relevance`, and so are the following.
        conserve: whether biases take no relevance.
        passes: of Monte-Carlo dropout.
        dropout: share of the relevance that a pass drops.
        random_state: of the passes.

    Raises:
        ValueError: an unknown layer, unit, sample or epoch, or no weights or inputs in the run.
    """
    described = run.description.layer(layer)
    place = _place(described.units, unit, layer)
    quantity = described.settings.get("quantity", "h")
    if quantity != "h":
        raise ValueError(f"layer {layer!r} holds {quantity!r}; relevance starts at hidden states, at a layer of 'h'")
    module = recurrent_module(run, layer, epoch=epoch)
    level = described.settings.get("level")
    top = level if isinstance(level, int) else module.num_layers - 1
    column = column_of(run, layer, module, described.units[place])
    inputs = module_inputs(run, layer, module.input_size, epoch)
    samples = run.description.samples
    chosen = np.arange(len(samples)) if sample is None else np.flatnonzero(samples == sample)
    if not len(chosen):
        raise ValueError(f"got sample {sample}; this run has samples {samples[0]} to {samples[-1]}")
    found = relevance(
        module,
        inputs[chosen],
        unit=column,
        step=step,
        level=top,
        epsilon=epsilon,
        conserve=conserve,
        passes=passes,
        dropout=dropout,
        random_state=random_state,
    )
    at = float(run.epochs[-1] if epoch is None else epoch)
    _compare(found, run.trace(layer, epochs=[at]).isel(epoch=0, unit=place, sample=chosen), layer)
    return found.assign_coords(sample=samples[chosen]).assign_attrs(unit=unit, layer=layer, epoch=at)


def module_inputs(run: Run, layer: str, size: int, epoch: float | None = None) -> Floats:
    """What the module that holds a layer was fed with, (sample, step, feature).

    Args:
        run: a recorded run.
        layer: one of its layers; of a stack, the inputs of the lowest level are meant.
        size: features that the module takes.
        epoch: default the newest.

    Raises:
        ValueError: the inputs are not known, or not at every step.
    """
    own = run.description.layer(layer)
    lowest = [
        each
        for each in run.description.layers
        if each.settings.get("module") == own.settings.get("module") and each.settings.get("level") in (None, 0)
    ]
    steps = own.steps
    if any(each.name == layer for each in lowest):
        found = run.inputs(layer, epoch)
    else:
        found = run.inputs(lowest[0].name, epoch) if lowest else None
    probe = run.probe
    if found is None and probe is not None and probe.ndim == 3 and probe.shape[2] == size:
        found = np.asarray(probe, dtype=np.float32)
    if found is None:
        raise ValueError(
            f"the run {run.name!r} holds no inputs of layer {layer!r}; record them with "
            'HiddenStateMonitor(record=("h", "inputs"))'
        )
    if found.shape[1] <= int(steps.max(initial=0)):
        raise ValueError(f"the inputs of layer {layer!r} are recorded at some steps only; record every step of it")
    return found


def _place(labels: npt.NDArray[Any], unit: int | str, layer: str) -> int:
    """The position of a unit's label."""
    places = [place for place, label in enumerate(labels.tolist()) if str(label) == str(unit)]
    if not places:
        raise ValueError(f"got unit {unit!r}; layer {layer!r} has {len(labels)}, from {labels[0]} to {labels[-1]}")
    return places[0]


def _compare(found: xr.Dataset, recorded: xr.DataArray, layer: str) -> None:
    """``ValueError`` where the network, run again on what it is said to read, does not do what was recorded."""
    steps = found["target_step"].values
    position = {step: place for place, step in enumerate(recorded["step"].values.tolist())}
    values = recorded.transpose("step", "sample").values
    for sample, step in enumerate(steps.tolist()):
        if step not in position or not np.isfinite(values[position[step], sample]):
            continue
        before, again = float(values[position[step], sample]), float(found["output"][sample])
        if abs(before - again) > _AGREEMENT * max(1.0, abs(before)):
            raise ValueError(
                f"layer {layer!r}, run again on the probe, gives {again:.3g} where {before:.3g} was recorded: it reads "
                "something else, or starts from other states; record its inputs with record=('h', 'inputs')"
            )
