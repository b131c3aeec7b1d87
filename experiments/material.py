"""What several experiments start from: a small real data set, a recorded training, pictures of it that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from hiddenscope.experiments.experiment import Context

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from hiddenscope.analyses.phases import Phases
    from hiddenscope.embeddings.baselines import Method
    from hiddenscope.experiments.classifiers import Recipe
    from hiddenscope.experiments.datasets.sequences import Split
    from hiddenscope.run import Run
    from hiddenscope.selection import Selection

STRIDE = 4
"""Every so many of the 64 steps are embedded by default."""


def small_watch(*, quick: bool = False) -> Split:
    """The watch data cut without overlap, at 25 Hz: 1,239 sequences to train and 594 held out, of 64 steps.

    Whole subjects are held out. With ``quick``, 210 and 105 sequences of 16 steps.
    """
    from hiddenscope.experiments.classifiers import reduced
    from hiddenscope.experiments.datasets.sequences import hold_out_groups, standardize
    from hiddenscope.experiments.datasets.watch import HELD_OUT_SUBJECTS, load_watch

    split = standardize(hold_out_groups(load_watch(stride=128), HELD_OUT_SUBJECTS))
    return reduced(split, every_step=8, train=210, held_out=105) if quick else reduced(split, every_step=2)


def recorded(context: Context, name: str, split: Split, recipe: Recipe, **options: Any) -> Run:
    """The run of a recipe, in the folder ``runs``; trained unless an earlier run of the experiment left it there."""
    import torch

    from hiddenscope.experiments.classifiers import trained

    torch.set_num_threads(1)  # several threads make so small a network slower
    folder = context.out / "runs" / name
    return trained(
        folder,
        split,
        recipe,
        seed=context.seed,
        watch=lambda epochs: context.progress(epochs, name, recipe.epochs),
        **options,
    )


def states(run: Run, *, stride: int = STRIDE, epochs: Selection | None = None) -> xr.DataArray:
    """The trace of a run at every so many steps, counted back from the last, which is always there."""
    steps = run.description.layers[0].steps
    return run.trace(steps=steps[::-1][::stride][::-1], epochs=epochs)


def kept_picture(
    context: Context,
    name: str,
    trace: xr.DataArray,
    method: Method = "mmphate",
    *,
    options: Mapping[str, Any] | None = None,
    **measures: Any,
) -> xr.Dataset:
    """`hiddenscope.experiments.measuring.picture` of a trace, from the cache where the same trace was drawn before."""
    import hashlib

    from hiddenscope.experiments.measuring import picture

    digest = hashlib.sha256(np.ascontiguousarray(trace.values).tobytes()).hexdigest()[:16]
    parameters = {
        "trace": digest,
        "sizes": [*trace.shape],
        "method": method,
        "options": dict(options or {}),
        **measures,
    }
    return context.cached(
        f"{name}-{method}",
        parameters,
        lambda: picture(trace, method, seed=context.seed, options=options, **measures),
    )


def curve_figure(
    groups: Mapping[str, Mapping[str, pd.Series[float]]], *, x_title: str = "epoch", columns: int = 2
) -> go.Figure:
    """Curves over epochs in panels side by side, with one legend; a name has the same color in every panel.

    Args:
        groups: title of a panel to curves by name, each indexed by epoch.
        x_title: of all panels.
        columns: panels side by side.
    """
    from plotly.subplots import make_subplots

    from hiddenscope.dashboard.figures.template import LIGHT, template

    rows = -(-len(groups) // columns)
    figure = make_subplots(
        rows=rows,
        cols=min(columns, len(groups)),
        subplot_titles=list(groups),
        horizontal_spacing=0.07,
        vertical_spacing=0.32 / max(rows, 1),
    )
    names = list(dict.fromkeys(name for curves in groups.values() for name in curves))
    for number, curves in enumerate(groups.values()):
        for name, curve in curves.items():
            figure.add_scatter(
                x=curve.index.to_numpy(dtype=float),
                y=curve.to_numpy(dtype=float),
                mode="lines",
                name=name,
                legendgroup=name,
                showlegend=next(i for i, other in enumerate(groups.values()) if name in other) == number,
                line={"color": LIGHT.classes[names.index(name) % len(LIGHT.classes)], "width": 2},
                row=number // columns + 1,
                col=number % columns + 1,
            )
    figure.update_layout(template=template(dark=False), margin={"l": 50, "r": 16, "t": 40, "b": 40})
    figure.update_annotations(font_size=12)
    figure.update_xaxes(title_text=x_title)
    return figure


def mean_over(values: xr.DataArray, dim: str) -> pd.Series[float]:
    """The mean over one dim, as a series over epochs."""
    mean = values.mean(dim, skipna=True)
    return mean.to_series()


def shown_epochs(epochs: np.ndarray[Any, np.dtype[np.float64]], most: int) -> list[float]:
    """At most so many epochs, closer together at the beginning, where most happens: first and last are among them.

    >>> shown_epochs(np.arange(-1.0, 100.0), 6)
    [-1.0, 3.0, 15.0, 35.0, 63.0, 99.0]
    """
    if most < 2:
        raise ValueError(f"at least 2 epochs are shown, got {most}")
    if len(epochs) <= most:
        return [float(epoch) for epoch in epochs]
    places = np.unique((np.linspace(0, 1, most) ** 2 * (len(epochs) - 1)).round().astype(int))
    return [float(epoch) for epoch in epochs[places]]


def phase_text(found: Phases) -> str:
    """Phases in words, such as ``"processing 0-12, steady 12-40"``; empty where none is claimed."""
    return ", ".join(f"{phase.kind} {phase.first:g} to {phase.last:g}" for phase in found.phases)
