"""Response characterization while a network trains: how its units answer, epoch by epoch, from the recorded weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.models import ModelAccess, columns_of
from hiddenscope.analyses.pod import padding_of
from hiddenscope.analyses.recurrence import READINGS, from_weights, side_by_side
from hiddenscope.analyses.removal import Score, agreement, model_score, rank_units, removal_curves, unit_importance
from hiddenscope.analyses.responses import Drive, drive_all, drive_data, unit_responses
from hiddenscope.analyses.studies import Study, is_current
from hiddenscope.run import Run

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "responses"
REMOVAL = "removal"
PERIODS = (8, 16, 32, 64)
REST, STEPS = 300, 400
MOST_EPOCHS = 24
RANKED = ("settling_time", "delay_time", "overshoot", "change", "gain", "lag")
"""What units are ranked by; gain and lag at `REFERENCE`."""
REFERENCE = 16
"""The period, in steps, whose gain and phase stand for all where one number is wanted."""

_KEPT = ("settling_time", "delay_time", "rise_time", "overshoot", "change", "step_flag")
_KEPT_BY_PERIOD = ("gain", "phase", "lag", "distortion", "correlation", "sine_flag")
_MOST_NUMBERS = 8_000_000  # of states that are held at a time
_CHEAP = 256  # units up to which `MOST_EPOCHS` are characterized in seconds


def responses_of_run(run: Run, layer: str) -> xr.Dataset | None:
    """How the units of a recorded layer answer a step and sines, at up to `MOST_EPOCHS` epochs, the newest among them.

    The input moves from the mean of the layer's recorded inputs by one standard deviation of each, or, where they are
    not known, from 0 to 1. Epochs that the stored result covers already are taken from there.

    Args:
        run: with recorded weights.
        layer: one of its recurrent layers, or the recorded cell states of one.

    Returns:
        Dims (epoch, unit): metrics of the step response, in the network, and ``step_flag``. Dims (epoch, unit, period):
        those of the sines, and ``sine_flag``. Of the newest epoch: ``step_response`` (reading, unit, step),
        ``isolated_settling_time``, ``isolated_overshoot`` and ``coupling`` (unit), ``isolated_gain`` and
        ``isolated_phase`` (unit, period), ``rank`` (metric, unit) and ``combined_rank`` (unit). Units are those
        that are recorded. None for a layer without recorded weights, or one that cannot be driven.
    """
    described = run.description.layer(layer)
    settings = described.settings
    state = str(settings.get("quantity") or "h")
    kind = str(settings.get("module_kind") or "").removesuffix("Cell")
    if kind not in ("RNN", "LSTM", "GRU") or state not in ("h", "c"):
        return None
    usable = [epoch for epoch in _spread(run.epochs, _bound(run, layer)) if _known(run.weights(layer, epoch))]
    if not usable:
        return None
    stored = _still_true(run, layer)
    old = [] if stored is None else [epoch for epoch in usable[:-1] if epoch in stored.epoch.values]
    fresh = [epoch for epoch in usable if epoch not in old]
    level = settings.get("level")
    level = level if isinstance(level, int) else 0
    nonlinearity = str(settings.get("nonlinearity") or "tanh")
    networks = [from_weights(run.weights(layer, epoch) or {}, kind=kind, nonlinearity=nonlinearity) for epoch in fresh]
    along = _drive(run, layer, level, networks[0].input_size)
    projected = networks[0].cells != networks[0].units
    size = networks[0].cells if state == "c" else networks[0].units
    at_once = max(1, _MOST_NUMBERS // ((1 + len(PERIODS)) * (REST + 15 * max(PERIODS)) * size))
    parts = []
    for first in range(0, len(fresh), at_once):
        found = unit_responses(
            side_by_side(networks[first : first + at_once]),
            drive_along=along,
            level=level,
            states=[state],
            readings=READINGS[:1],
            periods=PERIODS,
            rest=REST,
            steps=STEPS,
        )
        found = found if "network" in found.dims else found.expand_dims("network")
        epochs = fresh[first : first + at_once]
        parts.append(found.rename(network="epoch").assign_coords(epoch=epochs).squeeze(["reading", "state"], drop=True))
    newest = unit_responses(
        networks[-1],
        drive_along=along,
        level=level,
        states=[state],
        readings=READINGS[:1] if projected else READINGS,
        periods=PERIODS,
        rest=REST,
        steps=STEPS,
        traces=True,
    ).squeeze("state", drop=True)
    over_epochs = _recorded_units(xr.concat(parts, dim="epoch")[[*_KEPT, *_KEPT_BY_PERIOD]], described.units)
    if stored is not None and old:
        over_epochs = xr.concat([stored[list(over_epochs.data_vars)].sel(epoch=old), over_epochs], dim="epoch")
    over_epochs = over_epochs.sortby("epoch")
    result = over_epochs.merge(_of_newest(_recorded_units(newest, described.units)))
    reference = over_epochs.sel(period=REFERENCE, drop=True)
    result["reference_gain"], result["reference_phase"] = reference["gain"], reference["phase"]
    ranks = rank_units(newest_numbers(over_epochs))
    result["rank"] = (("metric", "unit"), ranks["rank"].values)
    result["combined_rank"] = ("unit", ranks["combined"].values)
    return result.assign_coords(metric=list(RANKED)).assign_attrs(
        drive=along.name,
        state=state,
        tolerance=newest.attrs["tolerance"],
        epoch_count=len(run.epochs),
        unit_columns={
            "settling_time": "settling time",
            "overshoot": "overshoot",
            "reference_gain": "gain",
            "reference_phase": "phase",
            "combined_rank": "response rank",
        },
    )


def newest_numbers(result: xr.Dataset) -> xr.Dataset:
    """The numbers that units are ranked by, in the newest epoch of a stored result: one variable (unit,) per metric."""
    newest = result.isel(epoch=-1, drop=True)
    at = newest.sel(period=REFERENCE, drop=True)
    return xr.Dataset({name: (at if "period" in newest[name].dims else newest)[name] for name in RANKED})


def remove_units(
    run: Run,
    layer: str,
    access: ModelAccess,
    inputs: Any,
    measure: Callable[[Tensor], float],
    *,
    worth: Callable[[Tensor], float] | None = None,
    quantity: str = "score",
    random_orders: int = 20,
    points: int = 21,
    seed: int = 0,
) -> xr.Dataset:
    """What the units of a recorded layer are worth to the trained model, against what their responses say.

    Args:
        run: whose responses are stored, or whose weights are recorded.
        layer: one of its recurrent layers.
        access: the trained model.
        inputs: what it takes, see `model_score`.
        measure: from its answer to a number of which more is better.
        worth: the same, for the worth of single units, where ``measure`` is too coarse to tell them apart, as accuracy
            on few sequences is; default: ``measure``.
        quantity: what that number is, for the axes.
        random_orders: as for `removal_curves`, like ``points`` and ``seed``.

    Returns:
        Everything of `removal_curves` and `agreement`, ``importance`` (unit), and the numbers of the units, by metric;
        ``combined`` is larger for a better mean rank. Metrics that half of the units lack are left out: most of their
        ranks would be ties. Stored under ``"removal"`` with the run, the page draws it.

    Raises:
        ValueError: a layer without responses; what `model_score` refuses.
    """
    stored = run.results.get(layer, METHOD, RESPONSES.parameters) if is_current(RESPONSES, run, layer) else None
    stored = responses_of_run(run, layer) if stored is None else stored
    if stored is None:
        raise ValueError(f"layer {layer!r} has no responses: they need recorded weights of an RNN, LSTM or GRU")
    width = access.width(layer)
    columns = columns_of(stored["unit"].values, width)

    def score_by(how: Callable[[Tensor], float]) -> Score:
        whole = model_score(access, layer, inputs, how)

        def score(keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
            masks = np.ones((len(keep), width), np.bool_)
            masks[:, columns] = keep
            return whole(masks)

        return score

    numbers = newest_numbers(stored)
    ranks = rank_units(numbers)
    numbers = numbers[[name for name in numbers if 2 * int(np.isfinite(numbers[name]).sum()) > numbers.sizes["unit"]]]
    numbers["combined"] = len(columns) + 1 - ranks["combined"]
    important = unit_importance(score_by(worth or measure), len(columns))
    every = rank_units(numbers)["rank"]
    curves = removal_curves(score_by(measure), every, random_orders=random_orders, points=points, seed=seed)
    result = numbers.merge(curves).merge(agreement(numbers, important))
    result["importance"] = ("unit", important)
    return result.assign_attrs(quantity=quantity)


def _spread(epochs: npt.NDArray[np.float64], most: int) -> list[float]:
    """About ``most`` epochs at most, evenly, and the newest; what was left out once never comes back."""
    stride = 1
    while len(epochs[::stride]) > most:
        stride *= 2
    return sorted({*epochs[::stride].tolist(), *epochs[-1:].tolist()})


def _bound(run: Run, layer: str) -> int:
    size = run.description.layer(layer).settings.get("hidden_size")
    units = size if isinstance(size, int) else _CHEAP
    return int(np.clip(MOST_EPOCHS * (_CHEAP / units) ** 2, 4, MOST_EPOCHS))


def _known(weights: dict[str, npt.NDArray[np.float64]] | None) -> bool:
    return bool(weights) and all(np.isfinite(values).all() for values in (weights or {}).values())


def _still_true(run: Run, layer: str) -> xr.Dataset | None:
    """The stored result, if the epochs that it was made from have not been superseded since."""
    stored = run.results.get(layer, METHOD, RESPONSES.parameters)
    if stored is None:
        return None
    count = int(stored.attrs.get("epoch_count", 0))
    same = 0 < count <= len(run.epochs) and run.fingerprint(layer, count=count) == stored.attrs.get("made_from")
    return stored if same else None


def _drive(run: Run, layer: str, level: int, input_size: int) -> Drive:
    """From the mean of the inputs of the whole network, as far as they are known, by one standard deviation."""
    name = layer
    if level > 0:
        module = str(run.description.layer(layer).settings.get("module"))
        name = next((other for other in run.layers if other == f"{module}.l0"), "")
    inputs = run.inputs(name) if name else run.probe
    if inputs is None or inputs.ndim != 3 or inputs.shape[-1] != input_size:
        return drive_all(input_size)
    padding = padding_of(run, (layer,))
    if padding is not None and padding[0].T.shape == inputs.shape[:2]:
        inputs = np.where(padding[0].T[:, :, None], np.nan, inputs)
    along = drive_data(inputs)
    return along if along.direction.any() else drive_all(input_size)


def _recorded_units(found: xr.Dataset, labels: npt.NDArray[np.int64] | npt.NDArray[np.str_]) -> xr.Dataset:
    """Those units that the run holds; of a bidirectional layer, those of the forward direction."""
    there = set(labels.tolist())
    return found.isel(unit=[at for at, label in enumerate(found["unit"].values.tolist()) if label in there])


def _of_newest(found: xr.Dataset) -> xr.Dataset:
    kept = xr.Dataset({"step_response": found["step_response"]})
    if "isolated" in found["reading"].values:
        alone = found.sel(reading="isolated", drop=True)
        kept["isolated_settling_time"], kept["isolated_overshoot"] = alone["settling_time"], alone["overshoot"]
        kept["isolated_gain"], kept["isolated_phase"] = alone["gain"], alone["phase"]
        kept["coupling"] = found["coupling"]
    return kept


RESPONSES = Study(
    METHOD,
    "responses of units to a step and to sines",
    responses_of_run,
    parameters={"periods": list(PERIODS), "rest": REST, "steps": STEPS, "tolerance": 0.1, "epochs": MOST_EPOCHS},
    live=True,
)
