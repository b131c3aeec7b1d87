"""Response characterization: how every unit of a recurrent layer answers a step and sines at the network's input.

After Hasani et al. (2018, arXiv:1809.03864), who expose the units of an LSTM to test signals and rank them by what they
answer. All signals run in one batch; units are read *in-network* (the trained network as it is) and *isolated* (every
unit with its own past alone), two readings of what the paper calls decoupled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.recurrence import READINGS, Recurrence, drive, from_module
from hiddenscope.analyses.response_metrics import (
    SINE_METRICS,
    SMALLEST,
    STEP_METRICS,
    TOLERANCE,
    sine_metrics,
    step_metrics,
    unwrapped,
)

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float64]

PERIODS = (8, 16, 32, 64, 128)
"""Periods of the sines, in steps."""

_STATES = ("h", "c")


@dataclass(frozen=True)
class Drive:
    """A line in input space along which a test signal moves: ``baseline + signal * direction``.

    Attributes:
        name: what it is, in words.
        baseline: the input at rest, (input,).
        direction: where a signal of 1 leads from there, (input,).
    """

    name: str
    baseline: Floats
    direction: Floats


def drive_all(input_size: int) -> Drive:
    """All inputs together, from 0 to 1: for inputs that are standardized.

    >>> drive_all(2).direction
    array([1., 1.])
    """
    return Drive("all inputs", np.zeros(input_size), np.ones(input_size))


def drive_one(input_size: int, feature: int) -> Drive:
    """One input, from 0 to 1; the others stay at 0.

    Raises:
        ValueError: there is no such input.

    >>> drive_one(3, 1).direction
    array([0., 1., 0.])
    """
    if not 0 <= feature < input_size:
        raise ValueError(f"feature must lie in 0..{input_size - 1}, got {feature}")
    return Drive(f"input {feature}", np.zeros(input_size), np.eye(input_size)[feature])


def drive_data(inputs: npt.ArrayLike, *, along: str = "deviation") -> Drive:
    """From the mean of some data, one standard deviation onward; padding (NaN) is left out.

    Args:
        inputs: (sample, step, feature).
        along: ``"deviation"``: every input by its own standard deviation; ``"component"``: along the first principal
            component by the standard deviation there, its largest entry positive.

    Raises:
        ValueError: no finite step in the data, or an unknown direction.

    >>> drive_data([[[0.0, 5.0], [4.0, 5.0]]]).direction
    array([2., 0.])
    """
    steps = np.asarray(inputs, dtype=np.float64)
    steps = steps.reshape(-1, steps.shape[-1])
    steps = steps[np.isfinite(steps).all(axis=1)]
    if not len(steps):
        raise ValueError("the data hold no finite step to drive along")
    mean = steps.mean(axis=0)
    if along == "deviation":
        return Drive("all inputs, one deviation from the mean of the data", mean, steps.std(axis=0))
    if along != "component":
        raise ValueError(f"along must be 'deviation' or 'component', got {along!r}")
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(steps.T, bias=True)))
    axis = axes[:, -1] * np.sign(axes[np.abs(axes[:, -1]).argmax(), -1])
    return Drive("first principal component of the data", mean, axis * np.sqrt(max(variances[-1], 0.0)))


def drive_tokens(embedding: npt.ArrayLike, *, start: int, end: int) -> Drive:
    """From the embedding vector of one token to that of another: a step in token space itself is not defined.

    Args:
        embedding: the vectors of all tokens, (token, input).
        start: the token at rest.
        end: the token at a signal of 1.

    >>> drive_tokens([[0.0, 0.0], [1.0, 2.0]], start=1, end=0).direction
    array([-1., -2.])
    """
    vectors = np.asarray(embedding, dtype=np.float64)
    for token in (start, end):
        if not 0 <= token < len(vectors):
            raise ValueError(f"tokens lie in 0..{len(vectors) - 1}, got {token}")
    return Drive(f"token {start} to token {end}", vectors[start], vectors[end] - vectors[start])


def unit_responses(
    model: nn.Module | Recurrence,
    layer: str | None = None,
    *,
    drive_along: Drive | None = None,
    states: Sequence[str] = ("h",),
    readings: Sequence[str] = READINGS,
    periods: Sequence[int] = PERIODS,
    amplitude: float = 1.0,
    tolerance: float = TOLERANCE,
    rest: int = 500,
    steps: int = 1000,
    transient: int = 5,
    cycles: int = 10,
    smallest: float = SMALLEST,
    level: int | None = None,
    traces: bool = False,
) -> xr.Dataset:
    """Step and sine responses of every unit of a recurrent layer, as numbers.

    The network starts from zeros, rests at the baseline, and then meets a step and sines, all in one batch. Its weights
    are copied, nothing of it is called, so a model in the midst of training stays exactly as it is. A bidirectional
    layer is driven in its forward direction.

    Args:
        model: an ``nn.RNN``, ``nn.LSTM``, ``nn.GRU`` or a cell of theirs; any model that holds one; or a `Recurrence`.
        layer: which one, where the model holds several: ``"lstm"``, or ``"lstm.l0"`` for one level of a stacked one.
        drive_along: from where to where the input moves; default `drive_all`. See also `drive_one`, `drive_data` and
            `drive_tokens`.
        states: ``"h"``, and ``"c"`` for the cell state of an LSTM.
        readings: ``"in-network"``, ``"isolated"``; the second is left out for layers with a projection.
        periods: of the sines, in steps, each at least 3.
        amplitude: of step and sines, in units of the drive's direction.
        tolerance: of the settling time, see `step_metrics`.
        rest: steps at the baseline before the signals.
        steps: of the step response.
        transient: periods of a sine before it is measured.
        cycles: periods of a sine that are measured.
        smallest: responses below count as none.
        level: of a `Recurrence` of several levels; default the last.
        traces: also give the step responses themselves, as ``step_response`` with dim ``step``, counted from the last
            one before the change; float32.

    Returns:
        Dims (reading, state, unit): the metrics of `step_metrics`, and ``step_flag``. Dims (reading, state, unit,
        period): those of `sine_metrics`, ``sine_flag``, and ``phase_unwrapped``, continued from the longest period
        down. Dims (state, unit), when both readings were asked for: ``coupling``, how far the step response in the
        network is from the isolated one, as the root mean square of the difference over that of the response in the
        network. A `Recurrence` of several networks adds a dim ``network`` in front.

    Raises:
        ValueError: a model that cannot be driven, an unknown layer, or options out of range.

    >>> from hiddenscope.analyses.recurrence import from_weights
    >>> leaky = from_weights({"weight_ih": [[0.1]], "weight_hh": [[0.9]]}, kind="RNN", nonlinearity="relu")
    >>> unit_responses(leaky, periods=[8])["settling_time"].values.ravel()
    array([22., 22.])
    """
    recurrence, level, labels = _recurrence(model, layer, level)
    for state in states:
        if state not in _STATES[: 2 if recurrence.kind == "LSTM" else 1]:
            raise ValueError(f"{_named(recurrence)} has the state 'h'{_or_c(recurrence)}, got {state!r}")
    if recurrence.cells != recurrence.units:
        if list(readings) == ["isolated"]:
            raise ValueError("a projection (proj_size) mixes the cells, so none can be isolated; read them in-network")
        readings = [reading for reading in readings if reading != "isolated"]
        if len(states) > 1:
            raise ValueError("with a projection, h and c have different units: ask for one of them")
    if not periods or min(periods) < 3 or transient < 0 or cycles < 1 or steps < 20 or rest < 2:
        raise ValueError(
            "responses need periods of 3 steps or more, transient >= 0, cycles >= 1, steps >= 20 and rest >= 2; got "
            f"periods={list(periods)}, transient={transient}, cycles={cycles}, steps={steps}, rest={rest}"
        )
    if not amplitude > 0:
        raise ValueError(f"amplitude must be above 0, got {amplitude}")
    if not readings or not states:
        raise ValueError(f"at least one reading and one state are needed, got {list(readings)} and {list(states)}")
    along = drive_all(recurrence.input_size) if drive_along is None else drive_along
    periods = sorted(periods)
    signals = amplitude * probe_signals(periods, steps=max(steps, (transient + cycles) * periods[-1]))
    answers = _answers(recurrence, along, signals, states, readings, rest=rest, level=level)
    answers = answers.assign_coords(unit=np.arange(answers.sizes["unit"]) if labels is None else labels)
    bounded = [state == "h" and recurrence.nonlinearity == "tanh" for state in states]
    stepped = answers.isel(signal=0, step=slice(0, rest + steps))
    stepping = _by_state(
        functools.partial(step_metrics, switch=rest, tolerance=tolerance, smallest=smallest), stepped, bounded
    )
    cycling = [
        _by_state(
            functools.partial(sine_metrics, period=period, amplitude=amplitude, smallest=smallest),
            answers.isel(signal=at, step=slice(rest + transient * period, rest + (transient + cycles) * period)),
            bounded,
        )
        for at, period in enumerate(periods, start=1)
    ]
    sines = xr.concat(cycling, dim=xr.DataArray(periods, dims="period", name="period")).transpose(..., "period")
    result = stepping.rename(flag="step_flag").merge(sines.rename(flag="sine_flag"))
    result["phase_unwrapped"] = sines["phase"].copy(data=unwrapped(sines["phase"].values))
    after = stepped.isel(step=slice(rest - 1, None))
    if set(READINGS) <= set(readings):
        result["coupling"] = _coupling(after)
    if traces:
        result["step_response"] = after.astype(np.float32).assign_coords(step=np.arange(after.sizes["step"]))
    result = result.transpose("network", "reading", "state", "unit", ...)
    return (result if recurrence.networks > 1 else result.isel(network=0)).assign_attrs(
        drive=along.name,
        amplitude=float(amplitude),
        tolerance=float(tolerance),
        rest=rest,
        steps=steps,
        transient=transient,
        cycles=cycles,
        smallest=float(smallest),
    )


def _answers(
    recurrence: Recurrence,
    along: Drive,
    signals: Floats,
    states: Sequence[str],
    readings: Sequence[str],
    *,
    rest: int,
    level: int,
) -> xr.DataArray:
    """All that was measured: dims (reading, state, network, signal, unit, step)."""
    found = []
    for reading in readings:
        driven = drive(
            recurrence,
            signals,
            baseline=along.baseline,
            direction=along.direction,
            rest=rest,
            level=level,
            reading=reading,
        )
        found.append([driven[state] for state in states])
    return xr.DataArray(
        np.array(found),
        dims=("reading", "state", "network", "signal", "unit", "step"),
        coords={"reading": list(readings), "state": list(states)},
    )


def _by_state(measure: Callable[..., xr.Dataset], answers: xr.DataArray, bounded: Sequence[bool]) -> xr.Dataset:
    """The same numbers of hidden and cell states, of which only some are bounded by 1."""
    found = [measure(answers.isel(state=[i]), bound=1.0 if bound else None) for i, bound in enumerate(bounded)]
    return xr.concat(found, dim="state")


def probe_signals(periods: Sequence[int], *, steps: int) -> Floats:
    """A step, and a sine of each period, all of amplitude 1: (signal, step).

    >>> probe_signals([4], steps=4).round(3).tolist()
    [[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, -1.0]]
    """
    time = np.arange(steps)
    return np.stack([np.ones(steps), *(np.sin(2 * np.pi * time / period) for period in periods)])


def recurrent_layers(model: nn.Module) -> dict[str, tuple[nn.Module, int]]:
    """Every layer of a model that can be driven, named as the monitor names them: its module and its level there."""
    from torch import nn

    found: dict[str, tuple[nn.Module, int]] = {}
    for name, module in model.named_modules():
        plain = ".".join(part for part in name.split(".") if part != "_orig_mod") or type(module).__name__.lower()
        if isinstance(module, nn.RNNBase) and module.num_layers > 1:
            found.update({f"{plain}.l{level}": (module, level) for level in range(module.num_layers)})
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            found[plain] = (module, 0)
    return found


def _recurrence(
    model: nn.Module | Recurrence, layer: str | None, level: int | None
) -> tuple[Recurrence, int, npt.NDArray[np.str_] | None]:
    """What is driven, at which level, and the labels of its units where they are not plain numbers."""
    if isinstance(model, Recurrence):
        chosen, at = model, len(model.forward) - 1 if level is None else level
    else:
        layers = recurrent_layers(model)
        named = type(model).__name__
        if not layers:
            raise ValueError(
                f"{named} has no nn.RNN, nn.LSTM, nn.GRU or one of their cells; only those can be driven unit by unit"
            )
        if level is not None:
            raise ValueError('say which level by its layer, such as layer="lstm.l0"; level= is for a Recurrence')
        if layer is None and len({id(module) for module, _ in layers.values()}) > 1:
            raise ValueError(f"{named} has recurrent layers {', '.join(map(repr, layers))}; say which one with layer=")
        if layer is not None and layer not in layers:
            raise ValueError(f"got layer {layer!r}; {named} has recurrent layers {', '.join(map(repr, layers))}")
        module, at = layers[layer] if layer is not None else list(layers.values())[-1]
        chosen = from_module(module)
    labels = np.array([f"forward {unit}" for unit in range(chosen.units)]) if chosen.backward else None
    return chosen, at, labels


def _named(recurrence: Recurrence) -> str:
    return ("a " if recurrence.kind == "GRU" else "an ") + recurrence.kind


def _or_c(recurrence: Recurrence) -> str:
    return " and the state 'c'" if recurrence.kind == "LSTM" else " alone"


def _coupling(answers: xr.DataArray) -> xr.DataArray:
    """Root mean square over the steps of the difference between the readings, relative; dims (…, state, unit)."""
    moved = answers - answers.isel(step=0)
    together, alone = (moved.sel(reading=reading, drop=True) for reading in READINGS)
    size = (together**2).mean("step") ** 0.5
    return ((together - alone) ** 2).mean("step") ** 0.5 / size.where(size > 0)


METRICS = (*STEP_METRICS, *SINE_METRICS)
"""Every number that a unit gets; see `step_metrics` and `sine_metrics`."""
