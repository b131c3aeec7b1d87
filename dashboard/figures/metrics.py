"""Loss and the other logged metrics over epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.template import theme

_SPLITS = ("train", "val", "test")
_LOSSES = ("loss", "nll", "error", "perplexity")
_OURS = "hiddenscope/"
_UNNAMED: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}


def metrics(values: pd.DataFrame, *, log: bool = False, smoothing: float = 0.0, dark: bool = False) -> go.Figure:
    """Losses on the left axis, everything else that was logged on the right one.

    Args:
        values: one column per metric, indexed by epoch; NaN where nothing was logged.
        log: whether the losses are read on a logarithmic axis.
        smoothing: see `smoothed`; the values themselves stay visible, faintly. 0 draws them alone.

    >>> [trace.name for trace in metrics(pd.DataFrame({"train_loss": [1.0, 0.5], "val_acc": [0.2, 0.7]})).data]
    ['train_loss', 'val_acc']
    """
    panel = metrics_panel(values, log=log, smoothing=smoothing, dark=dark)
    return stack([panel], untrained=bool((values.index == -1).any()), dark=dark)


def smoothed(values: npt.NDArray[np.floating[Any]], weight: float) -> npt.NDArray[np.float64]:
    """Exponential moving average of known values, without the pull of its start towards zero.

    Args:
        values: shape (position,), finite.
        weight: of the past, from 0 (the values themselves) up to, but not including, 1.

    Raises:
        ValueError: ``weight`` is outside [0, 1).

    >>> smoothed(np.array([4.0, 4.0, 0.0]), 0.5).round(3).tolist()
    [4.0, 4.0, 1.714]
    """
    if not 0 <= weight < 1:
        raise ValueError(f"smoothing must lie in [0, 1), got {weight}")
    found = np.empty(len(values))
    total = count = 0.0
    for i, value in enumerate(values):
        total, count = weight * total + value, weight * count + 1
        found[i] = total / count
    return found


def metrics_panel(values: pd.DataFrame, *, log: bool = False, smoothing: float = 0.0, dark: bool = False) -> Panel:
    """The panel of `metrics`."""
    shown = [str(name) for name in values.columns if not str(name).startswith(_OURS) and values[name].notna().any()]
    shown.sort(key=lambda name: (not _is_loss(name), _split(name) or "~", name))
    look = theme(dark=dark)
    dashes: dict[str, str] = {}
    traces, right, spare = [], set(), len(_SPLITS)
    raw: list[tuple[int, go.Scatter]] = []
    key: list[tuple[str, str, str]] = []
    for k, name in enumerate(shown):
        split = _split(name)
        if split is None:
            color = look.classes[spare % len(look.classes)]
            spare += 1
        else:
            color = look.classes[_SPLITS.index(split)]
        if not _is_loss(name):
            right.add(k)
        quantity = name.replace(split or "", "").strip("_/- ")
        dash = "solid" if _is_loss(name) else dashes.setdefault(quantity, ("dot", "dash", "dashdot")[len(dashes) % 3])
        known = values[name].notna().to_numpy()
        epochs = values.index.to_numpy(dtype=np.float32)[known]
        curve = values[name].to_numpy(dtype=np.float32)[known]
        if smoothing:
            faint = {"color": color, "width": 1, "dash": dash}
            raw.append((k, go.Scatter(x=epochs, y=curve, name=name, line=faint, opacity=0.3, **_UNNAMED)))
            finite = np.isfinite(curve)
            epochs, curve = epochs[finite], smoothed(curve[finite], smoothing).astype(np.float32)
        traces.append(
            go.Scatter(
                x=epochs,
                y=curve,
                mode="lines+markers" if known.sum() == 1 else "lines",
                name=name,
                line={"color": color, "width": 1.8, "dash": dash},
                hovertemplate=f"{name} %{{y:.4g}}<br>epoch %{{x}}<extra></extra>",
                showlegend=False,
            )
        )
        key.append((name, color, dash))
    losses, others = len(shown) - len(right), len(right)
    right |= {len(traces) + i for i, (k, _) in enumerate(raw) if k in right}
    traces += [trace for _, trace in raw]
    title = "loss" if losses and not others else "metrics" if others and not losses else "loss and metrics"
    if smoothing:
        title += f", smoothed by {smoothing:g}"
    return Panel(
        title=title,
        traces=traces,
        axis={"title": {"text": "loss"}, "type": "log" if log else "linear"},
        right=frozenset(right),
        right_axis={"title": {"text": ", ".join(dashes) if len(dashes) <= 2 else "metric"}},
        key=key,
        waiting="no metric is logged yet",
    )


def losses(values: pd.DataFrame) -> list[str]:
    """The names of the losses among metrics, that of the training first.

    >>> losses(pd.DataFrame({"val_loss": [1.0], "accuracy": [0.5], "train_loss": [1.0]}))
    ['train_loss', 'val_loss']
    """
    found = [str(name) for name in values.columns if _is_loss(str(name)) and not str(name).startswith(_OURS)]
    return sorted((name for name in found if values[name].notna().any()), key=lambda name: (_split(name) or "~", name))


def _split(name: str) -> str | None:
    return next((split for split in _SPLITS if split in name.lower()), None)


def _is_loss(name: str) -> bool:
    return any(word in name.lower() for word in _LOSSES)
