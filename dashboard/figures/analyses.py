"""What the analyses found, drawn: clusters of units and what they can do, time-resolved checks, and phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr

from hiddenscope.dashboard.figures.maps import epoch_step_map
from hiddenscope.dashboard.figures.panels import Panel, stack
from hiddenscope.dashboard.figures.template import (
    SMALL,
    class_colors,
    colorbar,
    colorscale,
    faded,
    message,
    template,
    theme,
)


def cluster_trajectories(clusters: xr.Dataset | None, *, picked: Sequence[str] = (), dark: bool = False) -> go.Figure:
    """Inter-step entropy of every unit over epochs, in the color of its cluster, and the clusters' centers.

    Args:
        clusters: as the study ``"clusters"`` stores them; None before there are any.
        picked: labels of units to bring forward.
    """
    if clusters is None or not clusters.sizes.get("cluster"):
        return message("units are clustered once three epochs are recorded", dark=dark)
    names = [str(name) for name in clusters["cluster"].values]
    colors = dict(zip(names, class_colors(len(names), dark=dark), strict=True))
    epochs = clusters["epoch"].values.astype(float)
    members = dict(zip(clusters["unit"].values.tolist(), map(str, clusters["unit_cluster"].values), strict=True))
    traces: list[Any] = []
    for unit, curve in zip(clusters["unit"].values.tolist(), _by(clusters["trajectory"], "unit"), strict=True):
        front = str(unit) in picked
        traces.append(
            go.Scatter(
                x=epochs,
                y=curve,
                mode="lines",
                name=f"unit {unit}",
                customdata=[str(unit)] * len(epochs),
                line={"color": colors.get(members[unit], theme(dark=dark).muted), "width": 2.4 if front else 0.8},
                opacity=1.0 if front else 0.3,
                showlegend=False,
                hovertemplate=f"unit {unit} (cluster {members[unit]}): %{{y:.3f}} nats<br>epoch %{{x}}<extra></extra>",
            )
        )
    for name, center in zip(names, _by(clusters["center"], "cluster"), strict=True):
        count = sum(member == name for member in members.values())
        traces.append(
            go.Scatter(
                x=epochs,
                y=center,
                mode="lines" if len(epochs) > 1 else "markers",
                name=f"{name} ({count})",
                line={"color": colors[name], "width": 3},
                hovertemplate=f"center of {name}: %{{y:.3f}} nats<br>epoch %{{x}}<extra></extra>",
            )
        )
    silhouette = clusters.attrs.get("silhouette", np.nan)
    told = "one cluster: no structure" if not np.isfinite(silhouette) else f"mean silhouette {silhouette:.2f}"
    axis = {"title": {"text": "inter-step entropy (nats)"}}
    title = f"clusters of units by inter-step entropy ({told})"
    return stack([Panel(title, traces, axis)], untrained=bool((epochs == -1).any()), dark=dark)


def confusion_matrices(
    silencing: xr.Dataset | None,
    *,
    part: str | None = None,
    mode: str = "recurrence",
    class_names: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Share of each true class that is taken for each class: the whole network, each cluster alone, and without it.

    Args:
        silencing: as `silence_clusters` makes it; None where no model was given.
        part: of the data; default the last.
        mode: of silencing.
        class_names: of the classes, by their code.
    """
    if silencing is None:
        return message(
            "silencing needs the trained model: hs.analyze(run, model=model),<br>"
            "or hiddenscope analyze RUN --model MODULE:CLASS",
            dark=dark,
        )
    there = [str(name) for name in silencing["part"].values]
    chosen = silencing.sel(part=part if part in there else there[-1], mode=mode)
    names = [str(name) for name in chosen["cluster"].values]
    cells = [("whole network", chosen["confusion_whole"].values, 0, 0)]
    cells += [(f"{name} alone", _at(chosen["confusion_alone"], name), 0, i + 1) for i, name in enumerate(names)]
    cells += [(f"without {name}", _at(chosen["confusion_without"], name), 1, i + 1) for i, name in enumerate(names)]
    count = chosen.sizes["true"]
    labels = [str(class_names[i]) if class_names is not None and i < len(class_names) else str(i) for i in range(count)]
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    columns = 1 + len(names)
    layout: dict[str, Any] = {"margin": {"l": 90, "r": 60, "t": 26, "b": 40}, "annotations": []}
    for number, (title, matrix, row, column) in enumerate(cells):
        suffix = "" if number == 0 else str(number + 1)
        left, right = column / columns, (column + 0.88) / columns
        low, high = (0.56, 0.96) if row == 0 else (0.0, 0.40)
        total = matrix.sum(axis=1, keepdims=True)
        share = np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
        figure.add_trace(
            go.Heatmap(
                z=share,
                x=labels,
                y=labels,
                customdata=matrix,
                zmin=0.0,
                zmax=1.0,
                colorscale=colorscale("value", dark=dark),
                showscale=number == 0,
                colorbar=colorbar(title="share", dark=dark) | {"x": 1.01},
                name=title,
                xaxis=f"x{suffix}",
                yaxis=f"y{suffix}",
                hovertemplate=f"{title}<br>%{{y}} taken for %{{x}}: %{{customdata}} (%{{z:.0%}})<extra></extra>",
            )
        )
        first = column == 0
        layout[f"xaxis{suffix}"] = {
            "domain": [left, right], "anchor": f"y{suffix}", "showticklabels": first, "showgrid": False,
            "tickangle": -45, "tickfont": {"size": SMALL - 2}, "title": {"text": "predicted" if first else ""},
        }  # fmt: skip
        layout[f"yaxis{suffix}"] = {
            "domain": [low, high], "anchor": f"x{suffix}", "autorange": "reversed", "showgrid": False,
            "showticklabels": first, "tickfont": {"size": SMALL - 2},
        }  # fmt: skip
        accuracy = np.trace(matrix) / max(matrix.sum(), 1)
        layout["annotations"].append(
            {
                "text": f"{title} · {accuracy:.0%}",
                "x": left,
                "y": high,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": SMALL, "color": look.text},
            }
        )
    figure.update_layout(layout)
    return figure


def unit_importance(
    silencing: xr.Dataset | None, *, part: str | None = None, picked: Sequence[str] = (), dark: bool = False
) -> go.Figure:
    """How much the loss grows without each unit, in both ways of silencing, the most important first."""
    if silencing is None:
        return message("which units matter is told by silencing each of them", dark=dark)
    there = [str(name) for name in silencing["part"].values]
    chosen = silencing["unit_loss"].sel(part=part if part in there else there[-1])
    order = np.argsort(-chosen.isel(mode=0).values, kind="stable")
    units = [str(unit) for unit in chosen["unit"].values[order]]
    look = theme(dark=dark)
    colors = class_colors(2, dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    for mode, color in zip(chosen["mode"].values.tolist(), colors, strict=False):
        figure.add_trace(
            go.Bar(
                x=units,
                y=chosen.sel(mode=mode).values[order],
                name=f"silent in the {mode}",
                customdata=units,
                marker={
                    "color": color,
                    "line": {"color": look.text, "width": [2 if unit in picked else 0 for unit in units]},
                },
                hovertemplate="without unit %{x}: %{y:+.4f} nats<extra></extra>",
            )
        )
    figure.update_layout(
        barmode="group",
        margin={"l": 58, "r": 16, "t": 30, "b": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        xaxis={"title": {"text": "silenced unit"}, "type": "category", "tickfont": {"size": SMALL - 2}},
        yaxis={"title": {"text": "growth of the loss (nats)"}},
    )
    return figure


def checks(
    entropy: xr.DataArray | None, probes: xr.Dataset | None, information: xr.Dataset | None, *, dark: bool = False
) -> go.Figure:
    """Maps over epoch and step on one axis: entropy, accuracy of a linear probe, and label-state information.

    Args:
        entropy: intra-step entropy (epoch, step), in nats.
        probes: as `probe_accuracy` makes it.
        information: as `label_information` makes it.
    """
    panels = [map_panel("intra-step entropy (nats)", entropy, dark=dark, waiting="drawn with the first picture")]
    told = "accuracy of a linear probe"
    if probes is not None:
        told += f" (shuffled labels: {probes.attrs['chance']:.2f}, 95th percentile {probes.attrs['chance_high']:.2f})"
    accuracy = None if probes is None else probes["accuracy"]
    low = None if probes is None else float(probes.attrs["chance"])
    waiting = "needs labels: hiddenscope analyze RUN"
    panels.append(map_panel(told, accuracy, low=low, high=1.0, dark=dark, waiting=waiting))
    beyond, told = None, "label-state information beyond shuffled labels (nats)"
    if information is not None:
        beyond = information["information"] - information.get("shuffled", 0.0)
        told += f", of at most {information.attrs['label_entropy']:.2f}"
    panels.append(map_panel(told, beyond, low=0.0, dark=dark, waiting=waiting))
    known = [one for one in (entropy, accuracy, beyond) if one is not None]
    untrained = any((one["epoch"].values == -1).any() for one in known)
    return stack(panels, untrained=untrained, dark=dark)


def map_panel(
    title: str,
    values: xr.DataArray | None,
    *,
    low: float | None = None,
    high: float | None = None,
    waiting: str = "",
    dark: bool = False,
) -> Panel:
    """A map of every epoch (across) and step (up); color from ``low`` to ``high``, or the middle 96 % of the values."""
    known = values is not None and np.isfinite(values.values).any()
    traces = [epoch_step_map(values, low=low, high=high, dark=dark)] if values is not None and known else []
    return Panel(title, traces, {"title": {"text": "step"}, "showgrid": False}, waiting=waiting)


def step_ablation(ablation: xr.Dataset | None, *, dark: bool = False) -> go.Figure:
    """How the loss changes when the state after each step is replaced; a line per kind, for the newest epoch."""
    if ablation is None:
        return message("ablation needs the trained model: hs.analyze(run, model=model)", dark=dark)
    newest = ablation["loss_change"].isel(epoch=-1)
    names = {"mean": "by the mean state", "shuffled": "by another sequence's"}
    figure = go.Figure(layout={"template": template(dark=dark)})
    for kind, color in zip(newest["kind"].values.tolist(), class_colors(2, dark=dark), strict=False):
        figure.add_trace(
            go.Scatter(
                x=newest["step"].values,
                y=newest.sel(kind=kind).values,
                mode="lines" if newest.sizes["step"] > 1 else "markers",
                name=f"replaced {names.get(kind, kind)}",
                line={"color": color, "width": 2},
                hovertemplate="state after step %{x} replaced: %{y:+.4f} nats<extra></extra>",
            )
        )
    figure.update_layout(
        margin={"l": 58, "r": 16, "t": 30, "b": 36},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "change of the loss (nats)"}, "rangemode": "tozero"},
    )
    return figure


def phase_timeline(phases: xr.Dataset | None, *, dark: bool = False) -> go.Figure:
    """Each curve over epochs with its broken line; significant rises and falls shaded.

    Args:
        phases: as `phases_of_all` makes it; None before there are enough epochs.
    """
    if phases is None or not phases.sizes.get("curve"):
        return message("phases are looked for once 12 epochs are recorded", dark=dark)
    look = theme(dark=dark)
    hues = {"processing": look.classes[2], "compression": look.classes[1]}  # as behind the curves of the page
    epochs = phases["epoch"].values.astype(float)
    panels, shapes = [], []
    for number, name in enumerate(phases["curve"].values.tolist()):
        one = phases.sel(curve=name)
        p_value = float(one["p_value"])
        told = "no phase" if not (one["phase_kind"].values != "").any() else "phases"
        told += f", p = {p_value:.3g}" if np.isfinite(p_value) else ""
        panels.append(
            Panel(
                f"{name} ({told})",
                [
                    _curve(epochs, one["value"].values, {"color": look.accent, "width": 1.6}, "value"),
                    _curve(epochs, one["line"].values, {"color": look.muted, "width": 1, "dash": "dot"}, "broken line"),
                ],
                {"nticks": 3},
            )
        )
        axis = "y" if number == 0 else f"y{2 * number + 1}"
        shapes += [
            {
                "type": "rect",
                "xref": "x",
                "yref": f"{axis} domain",
                "x0": phase["first"],
                "x1": phase["last"],
                "y0": 0,
                "y1": 1,
                "line": {"width": 0},
                "layer": "below",
                "fillcolor": faded(hues[phase["kind"]], 0.16),
            }
            for phase in phase_rows(one)
            if phase["kind"] in hues
        ]
    figure = stack(panels, untrained=bool((epochs == -1).any()), dark=dark)
    figure.update_layout(shapes=shapes)
    return figure


def entropies_by_embedding(found: xr.Dataset | None, *, which: str = "intra", dark: bool = False) -> go.Figure:
    """The entropy of each embedding in a strip of its own, with its band over probe samples where there is one.

    Levels of two embeddings cannot be compared. The caption has the strongest rank correlation with a metric.

    Args:
        found: as the study ``"entropies_by_method"`` stores it.
        which: ``"intra"`` or ``"inter"``.
    """
    if found is None:
        return message("entropies of other embeddings are made by hiddenscope analyze RUN", dark=dark)
    epochs = found["epoch"].values.astype(float)
    panels = []
    for name, color in zip(
        found["picture"].values.tolist(), class_colors(found.sizes["picture"], dark=dark), strict=True
    ):
        one = found.sel(picture=name)
        low, high = one[f"{which}_low"].values, one[f"{which}_high"].values
        traces: list[Any] = []
        if np.isfinite(low).any():
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            traces = [
                go.Scatter(x=epochs, y=low, **edge),
                go.Scatter(x=epochs, y=high, fill="tonexty", fillcolor=faded(color, 0.25), **edge),
            ]
        traces.append(_curve(epochs, one[which].values, {"color": color, "width": 2}, name))
        title = f"{name}: {which}-step entropy{_strongest(one, which)}"
        panels.append(Panel(title, traces, {"title": {"text": "nats"}, "nticks": 4}))
    return stack(panels, untrained=bool((epochs == -1).any()), dark=dark)


def _strongest(one: xr.Dataset, which: str) -> str:
    """The metric whose level goes with an entropy most clearly, in words; nothing where none is known."""
    if "correlation" not in one:
        return ""
    levels = one.sel(entropy=which, of="level")
    own = np.array([str(name).startswith("hiddenscope") for name in levels["metric"].values])  # states, not results
    strength = np.where(own, np.nan, np.abs(levels["correlation"].values))
    if not np.isfinite(strength).any():
        return ""
    best = levels.isel(metric=int(np.nanargmax(strength)))
    return f" ({float(best['correlation']):+.2f} with {best['metric'].item()}, p = {float(best['p_value']):.2g})"


def phase_rows(curve: xr.Dataset) -> list[Mapping[str, Any]]:
    """The phases of one curve, in order: ``kind``, ``first``, ``last``, ``change``, ``p_value``."""
    kinds = curve["phase_kind"].values.tolist()
    fields = {name: curve[f"phase_{name}"].values for name in ("first", "last", "change", "p_value")}
    return [
        {"kind": str(kind)} | {name: float(values[i]) for name, values in fields.items()}
        for i, kind in enumerate(kinds)
        if kind
    ]


def _curve(x: npt.NDArray[Any], y: npt.NDArray[Any], line: dict[str, Any], name: str) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line=line,
        name=name,
        showlegend=False,
        hovertemplate=f"{name} %{{y:.3f}}<br>epoch %{{x}}<extra></extra>",
    )


def _at(values: xr.DataArray, cluster: str) -> npt.NDArray[Any]:
    return np.asarray(values.sel(cluster=cluster).values)


def _by(values: xr.DataArray, dim: str) -> npt.NDArray[Any]:
    return np.asarray(values.transpose(dim, "epoch").values, dtype=float)
