"""Is what was selected what the unit needs? Keep a part of the input, replace the rest by its mean, look at the unit.

The check of Cho et al. 2020: units stay more active when the selected region of the input is kept than when as many
points are kept that relevance or chance chose. Ours: regions grow back from the peak, so that each number of kept steps
can be compared, and all curves come with bands over periods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float64]
Activate = Callable[[Floats], npt.ArrayLike]
STRATEGIES = ("selected", "relevant", "random")


def perturbation_curves(
    network: nn.RNNBase | Activate,
    inputs: npt.ArrayLike,
    periods: pd.DataFrame,
    *,
    unit: int,
    kept: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    relevances: npt.ArrayLike | None = None,
    repeats: int = 8,
    most_periods: int = 32,
    random_state: int = 0,
) -> xr.Dataset:
    """How much a unit loses at its peaks when only some steps of the input are kept.

    ``"selected"`` keeps the steps right up to the peak, ``"relevant"`` those with the largest absolute relevance,
    ``"random"`` any; all among the steps up to the peak. Every other step, the later ones included, is replaced by the
    mean of the inputs.

    Args:
        network: a recurrent module, or a function from inputs (sample, step, feature) to the output (sample, step,
            unit).
        inputs: (sample, step, feature); NaN past a sequence's end.
        periods: of this unit, as `hiddenscope.active_periods` gives them, with samples as positions.
        unit: column of the output.
        kept: numbers of steps to keep.
        relevances: relevance of every input for the unit at the peak, (period, step, feature), one row per row of
            ``periods``; computed for a module where it is not given.
        repeats: how often chance chooses.
        most_periods: so many periods are looked at, evenly spread over the table.
        random_state: seed of the choice by chance.

    Returns:
        ``drop`` (strategy, kept, period): what the unit's activation loses, in its unit, positive towards 0; averaged
        over repeats for chance. ``mean``, ``low`` and ``high`` (10th and 90th percentile over periods), dims
        (strategy, kept). ``activation`` (period) with the whole input, and ``empty`` (period): the drop when nothing
        is kept.

    Raises:
        ValueError: no period, or no relevance for a function.

    >>> inputs = np.zeros((1, 6, 1)); inputs[0, 4] = 6.0
    >>> peaks = pd.DataFrame({"sample": [0], "peak": [5]})
    >>> leaky = lambda x: np.cumsum(x, axis=1)
    >>> found = perturbation_curves(leaky, inputs, peaks, unit=0, kept=[1, 2], relevances=inputs)
    >>> found["mean"].sel(strategy=["selected", "relevant"]).values.tolist()
    [[1.0, -4.0], [-5.0, -4.0]]
    """
    values = np.asarray(inputs, dtype=np.float64)
    if not len(periods):
        raise ValueError(f"unit {unit} has no period to look at")
    if repeats < 1 or any(count < 0 for count in kept):
        raise ValueError(f"repeats must be at least 1 and kept not negative, got {repeats} and {list(kept)}")
    rows = np.unique(np.linspace(0, len(periods) - 1, min(most_periods, len(periods))).astype(int))
    samples, peaks = (periods[name].to_numpy(np.intp)[rows] for name in ("sample", "peak"))
    mean = np.nanmean(values, axis=(0, 1))
    clean = np.nan_to_num(values)[samples]
    given = _relevances(network, values[samples], peaks, unit) if relevances is None else np.asarray(relevances)[rows]
    order = _orders(np.abs(np.nan_to_num(given)).sum(axis=2), peaks, repeats, np.random.default_rng(random_state))
    activate: Activate = (
        network
        if callable(network) and not hasattr(network, "parameters")
        else _activation(cast("nn.RNNBase", network))
    )

    def at_peaks(x: Floats) -> Floats:
        output = np.asarray(activate(x), dtype=np.float64)
        return np.asarray(output[np.arange(len(x)), np.tile(peaks, len(x) // len(peaks)), unit])

    whole = at_peaks(clean)
    toward_zero = np.where(whole < 0, -1.0, 1.0)
    drops = np.zeros((len(STRATEGIES), len(kept), len(rows)))
    for column, count in enumerate(kept):
        keep = order < count  # (choice, period, step)
        cut = np.where(keep[..., None], clean[None], mean)
        lost = toward_zero * (whole - at_peaks(cut.reshape(-1, *clean.shape[1:])).reshape(len(order), -1))
        drops[:, column] = [lost[0], lost[1], lost[2:].mean(axis=0)]
    dims = ("strategy", "kept", "period")
    low, high = np.percentile(drops, [10, 90], axis=2)
    return xr.Dataset(
        {
            "drop": (dims, drops),
            "mean": (dims[:2], drops.mean(axis=2)),
            "low": (dims[:2], low),
            "high": (dims[:2], high),
            "activation": ("period", whole),
            "empty": ("period", toward_zero * (whole - at_peaks(np.broadcast_to(mean, clean.shape).copy()))),
        },
        coords={"strategy": list(STRATEGIES), "kept": list(kept), "period": rows},
        attrs={"unit": unit, "repeats": repeats},
    )


def _orders(
    sizes: Floats, peaks: npt.NDArray[np.intp], repeats: int, generator: np.random.Generator
) -> npt.NDArray[np.intp]:
    """In which order each choice keeps the steps, (choice, period, step): 0 first; steps after the peak never."""
    steps = np.arange(sizes.shape[1])
    past = steps <= peaks[:, None]
    nearest = np.where(past, peaks[:, None] - steps, np.iinfo(np.intp).max)
    choices = [nearest, _ranks(np.where(past, -sizes, np.inf), past)]
    choices += [_ranks(np.where(past, generator.random(sizes.shape), np.inf), past) for _ in range(repeats)]
    return np.stack(choices)


def _ranks(keys: Floats, past: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    ranks = np.argsort(np.argsort(keys, axis=1, kind="stable"), axis=1, kind="stable")
    return np.where(past, ranks, np.iinfo(np.intp).max)


def _relevances(
    network: nn.RNNBase | Activate, inputs: Floats, peaks: npt.NDArray[np.intp], unit: int
) -> npt.NDArray[np.floating]:
    from hiddenscope.analyses.relevance import relevance

    if not hasattr(network, "parameters"):
        raise ValueError("a function cannot say what is relevant; give relevances=, (period, step, feature)")
    module = cast("nn.RNNBase", network)
    found: npt.NDArray[np.floating] = relevance(module, inputs, unit=unit, step=peaks)["relevance"].values
    return found


def _activation(module: nn.RNNBase) -> Activate:
    import torch

    parameter = next(module.parameters())

    def activate(x: Floats) -> Floats:
        given = torch.as_tensor(x, dtype=parameter.dtype, device=parameter.device)
        training = module.training
        module.eval()
        try:
            with torch.no_grad():
                output = module(given if module.batch_first else given.transpose(0, 1))[0]
        finally:
            module.train(training)
        return np.asarray((output if module.batch_first else output.transpose(0, 1)).cpu().double().numpy())

    return activate
