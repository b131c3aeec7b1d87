"""Loss and the other logged metrics over epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.template import theme

_SPLITS = ("train", "val", "test")
_LOSSES = ("loss", "nll", "error", "perplexity")
_OURS = "hiddenscope/"


def metrics(values: pd.DataFrame, *, log: bool = False, dark: bool = False) -> go.Figure:
    """Losses on the left axis, everything else that was logged on the right one.

    Args:
        values: one column per metric, indexed by epoch; NaN where nothing was logged.
        log: whether the losses are read on a logarithmic axis.

    >>> [trace.name for trace in metrics(pd.DataFrame({"train_loss": [1.0, 0.5], "val_acc": [0.2, 0.7]})).data]
    ['train_loss', 'val_acc']
    """
    panel = metrics_panel(values, log=log, dark=dark)
    return stack([panel], untrained=bool((values.index == -1).any()), dark=dark)


def metrics_panel(values: pd.DataFrame, *, log: bool = False, dark: bool = False) -> Panel:
    """The panel of `metrics`."""
    shown = [str(name) for name in values.columns if not str(name).startswith(_OURS) and values[name].notna().any()]
    shown.sort(key=lambda name: (not _is_loss(name), _split(name) or "~", name))
    look = theme(dark=dark)
    dashes: dict[str, str] = {}
    traces, right, spare = [], set(), len(_SPLITS)
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
        traces.append(
            go.Scatter(
                x=values.index.to_numpy(dtype=np.float32)[known],
                y=values[name].to_numpy(dtype=np.float32)[known],
                mode="lines+markers" if known.sum() == 1 else "lines",
                name=name,
                line={"color": color, "width": 1.8, "dash": dash},
                hovertemplate=f"{name} %{{y:.4g}}<br>epoch %{{x}}<extra></extra>",
            )
        )
    losses, others = len(shown) - len(right), len(right)
    title = "loss" if losses and not others else "metrics" if others and not losses else "loss and metrics"
    return Panel(
        title=title,
        traces=traces,
        axis={"title": {"text": "loss"}, "type": "log" if log else "linear"},
        right=frozenset(right),
        right_axis={"title": {"text": ", ".join(dashes) if len(dashes) <= 2 else "metric"}},
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
