"""What a unit saw before it was highly active: windows of the inputs that end at the peaks of its periods.

A convolution sees a receptive field of fixed width; a recurrent unit sees all the past. Three ways to say how much of
it to show, all of them our own adaptation of Cho et al. 2020: a fixed number of steps, the unit's settling time, or
the steps that hold most of the gradient of the unit with respect to the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.floating]
WIDTH = 32
"""Steps of a window unless something better is known."""


def fixed_width(n_steps: int, *, width: int = WIDTH) -> int:
    """``width``, or all steps where there are fewer.

    >>> fixed_width(20), fixed_width(128)
    (20, 32)
    """
    return max(1, min(width, n_steps))


def settling_widths(settling: Mapping[int | str, float], *, n_steps: int, width: int = WIDTH) -> dict[int | str, int]:
    """A width per unit: its settling time in steps, rounded up, within 1..``n_steps``.

    Args:
        settling: unit label to settling time in steps; NaN or infinite for a unit that never settles.
        n_steps: steps of the sequences.
        width: for units without a settling time.

    >>> settling_widths({0: 3.2, 1: float("nan"), 2: 500.0}, n_steps=100)
    {0: 4, 1: 32, 2: 100}
    """
    return {
        unit: fixed_width(n_steps, width=width) if not np.isfinite(time) else int(np.clip(np.ceil(time), 1, n_steps))
        for unit, time in settling.items()
    }


def gradient_width(
    module: nn.RNNBase,
    inputs: npt.ArrayLike,
    periods: pd.DataFrame,
    *,
    unit: int,
    mass: float = 0.9,
    most_periods: int = 64,
) -> int:
    """The smallest window that holds ``mass`` of the gradient of a unit at its peaks with respect to the inputs.

    For each period, the absolute derivatives of the unit at the peak with respect to the inputs of every step, summed
    over features; the window counts back from the peak. The result is the median over periods, rounded up.

    Args:
        module: the recurrent module, whose output of ``unit`` is differentiated.
        inputs: (sample, step, feature), finite up to each peak.
        periods: of this unit, as `active_periods` gives them, with samples as positions.
        unit: position of the unit in the module's output.
        mass: share of the gradient, in (0, 1].
        most_periods: so many periods are looked at, evenly spread.

    Raises:
        ValueError: no period, or a ``mass`` outside of (0, 1].
    """
    import torch

    if not 0 < mass <= 1:
        raise ValueError(f"mass must lie in (0, 1], got {mass}")
    if not len(periods):
        raise ValueError(f"unit {unit} has no period whose window could be measured")
    chosen = periods.iloc[np.unique(np.linspace(0, len(periods) - 1, min(most_periods, len(periods))).astype(int))]
    values = np.nan_to_num(np.asarray(inputs, dtype=np.float32)[chosen["sample"].to_numpy()])
    parameter = next(module.parameters())
    given = torch.as_tensor(values, dtype=parameter.dtype, device=parameter.device).requires_grad_()
    training = module.training
    module.eval()
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            output = module(given if module.batch_first else given.transpose(0, 1))[0]
            output = output if module.batch_first else output.transpose(0, 1)
            peaks = torch.as_tensor(chosen["peak"].to_list(), device=output.device)
            target = output[torch.arange(len(peaks), device=output.device), peaks, unit].sum()
            (gradient,) = torch.autograd.grad(target, given)
    finally:
        module.train(training)
    sizes = gradient.abs().sum(dim=2).cpu().numpy().astype(np.float64)
    return int(
        np.ceil(np.median([_mass_width(size, peak, mass) for size, peak in zip(sizes, chosen["peak"], strict=True)]))
    )


def _mass_width(sizes: npt.NDArray[np.float64], peak: int, mass: float) -> int:
    """Steps back from ``peak`` that hold ``mass`` of ``sizes[:peak + 1]``; 1 where there is none."""
    back = np.cumsum(sizes[: peak + 1][::-1])
    if back[-1] == 0:
        return 1
    return int(np.argmax(back >= mass * back[-1] * (1 - 1e-12))) + 1


def windows_at_peaks(
    inputs: npt.ArrayLike, periods: pd.DataFrame, *, width: int, incomplete: Literal["drop", "mask"] = "drop"
) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The inputs of the ``width`` steps that end at each period's peak.

    Args:
        inputs: (sample, step, feature).
        periods: as `active_periods` gives them, with samples as positions.
        width: in steps.
        incomplete: what happens to windows that begin before the sequence does: ``"drop"`` them, or fill the steps
            before the sequence with NaN (``"mask"``).

    Returns:
        The windows (window, lag, feature), the last lag being the peak, and the row of ``periods`` of each.

    Raises:
        ValueError: ``width`` below 1, inputs that are not (sample, step, feature), or periods beyond them.

    >>> inputs = np.arange(5.0).reshape(1, 5, 1)
    >>> periods = pd.DataFrame({"sample": [0, 0], "peak": [1, 4]})
    >>> windows, rows = windows_at_peaks(inputs, periods, width=3)
    >>> windows[:, :, 0].tolist(), rows.tolist()
    ([[2.0, 3.0, 4.0]], [1])
    """
    values = np.asarray(inputs)
    if values.ndim != 3:
        raise ValueError(f"inputs need dims (sample, step, feature), got shape {values.shape}")
    if width < 1:
        raise ValueError(f"width must be at least 1 step, got {width}")
    if incomplete not in ("drop", "mask"):
        raise ValueError(f"incomplete must be 'drop' or 'mask', got {incomplete!r}")
    values = values.astype(np.result_type(values.dtype, np.float32), copy=False)
    samples, peaks = periods["sample"].to_numpy(np.intp), periods["peak"].to_numpy(np.intp)
    if len(periods) and not (samples.max() < values.shape[0] and peaks.max() < values.shape[1]):
        raise ValueError(
            f"periods reach sample {samples.max()} and step {peaks.max()}, the inputs have shape {values.shape}"
        )
    steps = peaks[:, None] + np.arange(1 - width, 1)
    inside = steps >= 0
    cut = values[samples[:, None], np.maximum(steps, 0)]
    cut[~inside] = np.nan
    rows = np.arange(len(periods), dtype=np.intp)
    complete = inside.all(axis=1) if incomplete == "drop" else np.ones(len(periods), dtype=bool)
    return cut[complete], rows[complete]
