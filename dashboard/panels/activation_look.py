"""One unit at one epoch, as the panel of activations looks at it: all that is computed from the recording for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.analyses.activations import ACTIVATION_DIMS, Sign, activation_thresholds, active_periods
from hiddenscope.analyses.excitation import Excitation, excitation, most_varying, network_inputs
from hiddenscope.analyses.patterns import Method
from hiddenscope.analyses.windows import WIDTH, gradient_width, settling_widths
from hiddenscope.dashboard.figures.activations import perturbation
from hiddenscope.dashboard.figures.template import message
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run

SIGNS: dict[str, Sign] = {"high": "positive", "low": "negative", "either": "absolute"}
CLUSTERS: dict[str, Method] = {"k-means": "kmeans", "Gaussian mixture": "mixture", "self-organizing map": "som"}
EPSILONS = ("0.1", "0.3", "0.03", "0.001")
"""Of the relevance that is drawn. With less, relevance grows beyond bounds over a hundred steps of a trained LSTM."""
WINDOWS = ("32 steps", "settling time", "90 % of gradient", "8 steps")
"""How much of the past a pattern shows; what is not known (no weights, no responses yet) falls back to 32 steps."""
SHORT = 8
PASSES = 50
KEPT = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Look:
    """One unit at one epoch, ready to be drawn.

    Attributes:
        run, layer, epoch: where it comes from.
        states: dims (step, unit, sample), samples by their labels.
        inputs: (sample, step, feature), or None.
        found: periods and patterns of the unit.
        sign: which activations count as high.
        epsilon: of the relevance.
        dark: whether the page is dark.
    """

    run: Run
    layer: str
    epoch: float
    states: xr.DataArray
    inputs: npt.NDArray[Any] | None
    found: Excitation
    sign: Sign
    epsilon: float
    dark: bool


def look_at(
    run: Run, layer: str, epoch: float | None, units: Sequence[str], options: Mapping[str, str], *, dark: bool
) -> Look | None:
    """What is shown of the first of some units, or of the one that varies most; None where none does."""
    at = float(run.epochs[-1] if epoch is None or epoch not in run.epochs else epoch)
    states = run.trace(layer, epochs=[at]).isel(epoch=0).transpose(*ACTIVATION_DIMS)
    labels = states["unit"].values
    picked = [label for name in units for label in labels if str(label) == name]
    varying = most_varying(states, 1)
    if not picked and not len(varying):
        return None
    unit = picked[0] if picked else labels[varying[0]]
    inputs = network_inputs(run, layer, at)
    sign = SIGNS.get(options.get("sign", ""), "positive")
    method = CLUSTERS.get(options.get("clusters", ""), "kmeans")
    width = window_width(run, layer, at, unit, states, sign=sign, choice=options.get("window", ""))
    found = excitation(states, inputs, unit=unit, sign=sign, method=method, width=width)
    epsilon = options.get("epsilon", "")
    return Look(
        run, layer, at, states, inputs, found, sign, float(epsilon if epsilon in EPSILONS else EPSILONS[0]), dark
    )


def window_width(
    run: Run, layer: str, epoch: float, unit: Any, states: xr.DataArray, *, sign: Sign, choice: str
) -> int:
    """Steps of a window for one unit, as chosen; 32 where what it takes is not known."""
    if choice == WINDOWS[1]:
        stored = run.results.get(layer, "responses")
        if stored is None or "settling_time" not in stored or unit not in stored["unit"].values:
            return WIDTH
        course_of = stored["settling_time"].sel(unit=unit)
        near = course_of.sel(epoch=epoch, method="nearest") if "epoch" in course_of.dims else course_of
        steps = run.description.layer(layer).steps
        return settling_widths({unit: float(near)}, n_steps=int(steps.max(initial=0)) + 1)[unit]
    if choice == WINDOWS[2]:
        from hiddenscope.analyses.models import column_of, recurrent_module
        from hiddenscope.analyses.run_relevance import module_inputs

        try:
            module = recurrent_module(run, layer, epoch=epoch)
            if run.description.layer(layer).settings.get("level", 0) != module.num_layers - 1:
                return WIDTH
            inputs = module_inputs(run, layer, module.input_size, epoch)
            alone = states.sel(unit=[unit]).assign_coords(sample=np.arange(states.sizes["sample"]))
            periods = active_periods(alone, activation_thresholds(alone, sign=sign), sign=sign)
            periods = periods.assign(peak=states["step"].values[periods["peak"].to_numpy(np.intp)])
            return gradient_width(module, inputs, periods, unit=column_of(run, layer, module, unit))
        except (ValueError, HiddenscopeError, KeyError):
            return WIDTH
    return SHORT if choice == WINDOWS[3] else WIDTH


def position_of(look: Look, step: int) -> int:
    """The position of the recorded step that is nearest to a step of the inputs."""
    return int(np.abs(look.states["step"].values - step).argmin())


def top_periods(periods: pd.DataFrame) -> pd.DataFrame:
    """The strongest periods first."""
    return periods.iloc[np.argsort(-periods["value"].abs().to_numpy(), kind="stable")]


def explained(look: Look, place: int, step: int) -> tuple[xr.Dataset | None, str]:
    """Relevance for the unit at a step of one sequence, or why there is none."""
    from hiddenscope.analyses.run_relevance import run_relevance

    try:
        found = run_relevance(
            look.run,
            look.layer,
            unit=look.found.unit,
            sample=int(look.states["sample"].values[place]),
            step=step,
            epoch=look.epoch,
            epsilon=look.epsilon,
            passes=PASSES,
        )
    except (ValueError, HiddenscopeError, KeyError) as error:
        return None, f"no relevance: {str(error).split('; ')[0]}"
    return found, ""


def perturbation_view(look: Look) -> go.Figure:
    """What the unit loses when only a part of the input is kept."""
    from hiddenscope.analyses.models import column_of, recurrent_module
    from hiddenscope.analyses.perturbation import perturbation_curves
    from hiddenscope.analyses.run_relevance import module_inputs

    try:
        settings = look.run.description.layer(look.layer).settings
        module = recurrent_module(look.run, look.layer, epoch=look.epoch)
        if settings.get("level", 0) != module.num_layers - 1 or settings.get("quantity", "h") != "h":
            raise ValueError("only the hidden states of the top level can be run again on other inputs")
        inputs = module_inputs(look.run, look.layer, module.input_size, look.epoch)
        column = column_of(look.run, look.layer, module, look.found.unit)
        steps = look.states["step"].values
        periods = top_periods(look.found.periods).head(16)
        periods = periods.assign(peak=steps[periods["peak"].to_numpy(np.intp)])
        kept = [count for count in KEPT if count <= inputs.shape[1]]
        found = perturbation_curves(module, inputs, periods, unit=column, kept=kept, repeats=4)
    except (ValueError, HiddenscopeError, KeyError) as error:
        return message(f"no perturbation: {str(error).split('; ')[0]}", dark=look.dark)
    return perturbation(found, dark=look.dark)
