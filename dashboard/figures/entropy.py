"""Entropies of the embedding over epochs (Xie et al. 2024, section 3).

Intra-step entropy: how widely all units are spread at one step of one epoch. Inter-step entropy: how widely one unit
travels over the steps of one epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.maps import epoch_step_map
from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.template import class_colors, faded, theme

_WAITING = "drawn as soon as the first picture is made"


def intra_entropy(values: xr.DataArray, *, unit: str = "nats", dark: bool = False) -> go.Figure:
    """Mean over steps of the intra-step entropy, with the band from the 10th to the 90th percentile of the steps.

    Args:
        values: dims (epoch, step), in ``unit``.

    >>> figure = intra_entropy(xr.DataArray([[1.0, 3.0]], dims=("epoch", "step"), coords={"epoch": [0]}))
    >>> float(figure.data[-1].y[0])
    2.0
    """
    return stack([intra_panel(values, unit=unit, dark=dark)], untrained=_untrained(values), dark=dark)


def entropy_map(values: xr.DataArray, *, unit: str = "nats", dark: bool = False) -> go.Figure:
    """Intra-step entropy of every epoch (across) and step (up).

    Args:
        values: dims (epoch, step), in ``unit``.
    """
    return stack([map_panel(values, unit=unit, dark=dark)], untrained=_untrained(values), dark=dark)


def inter_entropy(
    values: xr.DataArray, *, selected: Sequence[int | str] = (), unit: str = "nats", dark: bool = False
) -> go.Figure:
    """Inter-step entropy: a thin line per unit, their median on top, selected units in color.

    Args:
        values: dims (epoch, unit), in ``unit``.
        selected: labels of the units to bring forward.
    """
    return stack(
        [inter_panel(values, selected=selected, unit=unit, dark=dark)], untrained=_untrained(values), dark=dark
    )


def intra_panel(values: xr.DataArray | None, *, unit: str = "nats", dark: bool = False) -> Panel:
    """The panel of `intra_entropy`; None stands for entropies that are not computed yet."""
    traces = []
    if _drawable(values):
        look = theme(dark=dark)
        by_epoch = values.transpose("epoch", "step").values.astype(float)
        known = np.isfinite(by_epoch).any(axis=1)
        epochs = values["epoch"].values[known].astype(np.float32)
        low, high = np.nanpercentile(by_epoch[known], [10, 90], axis=1).astype(np.float32)
        mean = np.nanmean(by_epoch[known], axis=1).astype(np.float32)
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        traces = [
            go.Scatter(x=epochs, y=low, name="10th percentile", **band),
            go.Scatter(x=epochs, y=high, name="90th percentile", fill="tonexty", fillcolor=look.faint, **band),
            go.Scatter(
                x=epochs,
                y=mean,
                name="mean over steps",
                mode="lines+markers" if len(epochs) == 1 else "lines",
                line={"color": look.accent, "width": 2},
                hovertemplate=f"mean over steps %{{y:.3f}} {unit}<br>epoch %{{x}}<extra></extra>",
                showlegend=False,
            ),
        ]
    return Panel(
        "intra-step entropy: mean over steps, band 10\u201390 %", traces, _entropy_axis(unit), waiting=_WAITING
    )


def map_panel(values: xr.DataArray | None, *, unit: str = "nats", dark: bool = False) -> Panel:
    """The panel of `entropy_map`; None stands for entropies that are not computed yet."""
    traces = []
    if _drawable(values):
        traces = [epoch_step_map(values, unit=unit, dark=dark).update(name="intra-step entropy")]
    axis = {"title": {"text": "step"}, "showgrid": False}
    return Panel(f"intra-step entropy of every step ({unit})", traces, axis, waiting=_WAITING, weight=1.15)


def inter_panel(
    values: xr.DataArray | None,
    *,
    selected: Sequence[int | str] = (),
    clusters: xr.DataArray | None = None,
    unit: str = "nats",
    dark: bool = False,
) -> Panel:
    """The panel of `inter_entropy`; None stands for entropies that are not computed yet."""
    traces: list[go.Scatter] = []
    if _drawable(values):
        look = theme(dark=dark)
        by_unit = values.transpose("unit", "epoch").values.astype(np.float32)
        epochs = values["epoch"].values.astype(np.float32)
        labels = [str(label) for label in values["unit"].values]
        wanted = {str(label): look.classes[i % len(look.classes)] for i, label in enumerate(selected)}
        mode = "lines+markers" if len(epochs) == 1 else "lines"
        colors, medians = _clustered(clusters, labels, by_unit, dark=dark)
        for label, curve in sorted(zip(labels, by_unit, strict=True), key=lambda pair: pair[0] in wanted):
            quiet = {"color": colors.get(label, look.faint), "width": 1}
            line = {"color": wanted[label], "width": 2.2} if label in wanted else quiet
            traces.append(
                go.Scatter(
                    x=epochs,
                    y=curve,
                    name=f"unit {label}",
                    meta={"unit": label},
                    mode=mode,
                    line=line,
                    showlegend=label in wanted,
                    hovertemplate=f"unit {label}: %{{y:.3f}} {unit}<br>epoch %{{x}}<extra></extra>",
                )
            )
        for name, color, median, members in medians:
            traces.append(
                go.Scatter(
                    x=epochs,
                    y=median,
                    name=f"cluster {name}",
                    meta={"units": members},
                    mode=mode,
                    line={"color": color, "width": 2.4},
                    showlegend=False,
                    hovertemplate=f"cluster {name}, median %{{y:.3f}} {unit}<br>epoch %{{x}}<extra></extra>",
                )
            )
        known = np.isfinite(by_unit).any(axis=0)
        title = "inter-step entropy: a line per unit, median in blue"
        if medians:
            key = [(f"cluster {name}", color, "solid") for name, color, _, _ in medians]
            return Panel("inter-step entropy of every unit", traces, _entropy_axis(unit), key=key, weight=1.15)
        traces.append(
            go.Scatter(
                x=epochs[known],
                y=np.nanmedian(by_unit[:, known], axis=0),
                name="median",
                mode=mode,
                line={"color": look.accent, "width": 2},
                showlegend=False,
                hovertemplate=f"median %{{y:.3f}} {unit}<br>epoch %{{x}}<extra></extra>",
            )
        )
    title = "inter-step entropy: a line per unit, median in blue"
    return Panel(title, traces, _entropy_axis(unit), waiting=_WAITING, weight=1.15)


def _clustered(
    clusters: xr.DataArray | None, labels: list[str], by_unit: npt.NDArray[np.float32], *, dark: bool
) -> tuple[dict[str, str], list[tuple[str, str, npt.NDArray[np.float32], list[str]]]]:
    """The color of each unit, and name, color, median and units of each cluster; nothing for fewer than two."""
    if clusters is None:
        return {}, []
    found = {str(label): str(name) for label, name in zip(clusters["unit"].values, clusters.values, strict=True)}
    names = sorted({name for name in found.values() if name})
    if len(names) < 2:
        return {}, []
    hues = dict(zip(names, class_colors(len(names), dark=dark), strict=True))
    colors = {label: faded(hues[name], 0.35) for label, name in found.items() if name}
    medians = []
    for name in names:
        members = [label for label in labels if found.get(label) == name]
        own = by_unit[[label in members for label in labels]]
        if members:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # an epoch without any value has no median
                medians.append((name, hues[name], np.nanmedian(own, axis=0).astype(np.float32), members))
    return colors, medians


def _entropy_axis(unit: str) -> dict[str, object]:
    return {"title": {"text": f"entropy ({unit})"}}


def _drawable(values: xr.DataArray | None) -> TypeGuard[xr.DataArray]:
    return values is not None and values.size > 0 and bool(np.isfinite(values.values).any())


def _untrained(values: xr.DataArray) -> bool:
    return "epoch" in values.coords and bool((values["epoch"] == -1).any())
