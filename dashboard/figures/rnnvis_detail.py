"""Details on demand, as in RNNVis (Ming et al. 2017): how units answer to a word, and words to a unit; and, over the
epochs, whether co-clusters stay, which is ours."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import hex_to_rgb
from plotly.subplots import make_subplots

from hiddenscope.analyses.expected_response import RARE, salient_words
from hiddenscope.dashboard.figures.rnnvis import NEGATIVE, POSITIVE, written
from hiddenscope.dashboard.figures.template import SMALL, class_colors, epoch_text, message, template, theme

MOST_POINTS = 200
"""Units that a distribution draws, evenly spaced among all of them."""
MOST_WORDS = 4
"""Words that one distribution compares."""


def word_distributions(
    responses: xr.Dataset | None,
    words: Sequence[object],
    *,
    actual: xr.DataArray | None = None,
    picked: Sequence[str] = (),
    dark: bool = False,
) -> go.Figure:
    """How all units answer to one or several words: mean, and the bands of 25 to 75 and 9 to 91 percent.

    Args:
        responses: as `hiddenscope.analyses.expected_response.run_responses` gives them, or None.
        words: labels of the words; the units are in the order of their mean response to the first.
        actual: one update of every unit, dims (unit,), to compare with.
        picked: labels of units to mark.
        dark: for a dark page.
    """
    if responses is None or not responses.sizes["word"]:
        return message("No words to compare.", dark=dark)
    known = responses["word"].values.tolist()
    chosen = [word for word in words if word in known][:MOST_WORDS]
    if not chosen:
        return message("Click a word to see how every unit answers to it;<br>click others to compare.", dark=dark)
    order = np.argsort(-responses["response"].sel(word=chosen[0]).values, kind="stable")
    labels = np.array([str(unit) for unit in responses["unit"].values.tolist()])
    if len(order) > MOST_POINTS:
        some = np.linspace(0, len(order) - 1, MOST_POINTS).round().astype(int)
        order = order[np.union1d(some, np.flatnonzero(np.isin(labels[order], list(picked))))]
    ranks = np.arange(len(order))
    units = labels[order].tolist()
    figure = go.Figure(layout={"template": template(dark=dark)})
    for word, color in zip(chosen, class_colors(len(chosen), dark=dark), strict=True):
        own = responses.sel(word=word)
        name = written(str(own["name"].values))
        count = int(own["count"])
        legend = f"{name} ({count}{', rare' if count < RARE else ''})"
        for low, high in ((0.09, 0.91), (0.25, 0.75)):
            figure.add_scatter(
                x=np.concatenate([ranks, ranks[::-1]]),
                y=np.concatenate([_band(own, high)[order], _band(own, low)[order][::-1]]),
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor=_faint(color, 0.16),
                hoverinfo="skip",
                showlegend=False,
                legendgroup=str(word),
                name=f"{name}: {low:.0%} to {high:.0%}",
            )
        figure.add_scatter(
            x=ranks,
            y=own["response"].values[order],
            mode="lines",
            line={"color": color, "width": 2},
            name=legend,
            legendgroup=str(word),
            customdata=units,
            hovertemplate="unit %{customdata}<br>%{y:+.3g}<extra>" + name + "</extra>",
        )
    if actual is not None:
        figure.add_scatter(
            x=ranks,
            y=actual.values[order],
            mode="lines",
            line={"color": theme(dark=dark).text, "width": 1, "dash": "dot"},
            name="in the sentence",
            customdata=units,
            hovertemplate="unit %{customdata}<br>%{y:+.3g}<extra>in the sentence</extra>",
        )
    marked = [rank for rank, unit in enumerate(units) if unit in set(picked)]
    if marked:
        means = responses["response"].sel(word=chosen[0]).values[order]
        figure.add_scatter(
            x=marked,
            y=means[marked],
            mode="markers+text",
            text=[units[rank] for rank in marked],
            textposition="top center",
            marker={"symbol": "circle-open", "size": 9, "color": theme(dark=dark).text, "line": {"width": 2}},
            customdata=[units[rank] for rank in marked],
            hovertemplate="unit %{customdata}<br>%{y:+.3g}<extra>picked</extra>",
            showlegend=False,
            name="picked",
        )
    first = html.escape(str(responses["name"].sel(word=chosen[0]).values))
    figure.update_xaxes(title=f"units, by their mean response to \u201c{first}\u201d", showticklabels=False)
    figure.update_yaxes(title="response (change of state)", zeroline=True, zerolinecolor=theme(dark=dark).muted)
    figure.update_layout(
        height=330, hovermode="closest", legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    )
    return figure


def unit_boxes(
    responses: xr.Dataset | None, unit: object | None, *, count: int = 4, least: int = 2, dark: bool = False
) -> go.Figure:
    """The words that one unit answers to most, positive ones and negative ones, as boxes.

    A box goes from the 25th to the 75th percentile, its whiskers from the 9th to the 91st, and the thick line is the
    mean, which may lie outside of the box.

    Args:
        responses: as `hiddenscope.analyses.expected_response.run_responses` gives them, or None.
        unit: the unit's label.
        count: words of each sign.
        least: words that occur less often are left out.
        dark: for a dark page.
    """
    if responses is None or unit is None:
        return message("Click a unit to see the words it answers to.", dark=dark)
    labels = {str(label): label for label in responses["unit"].values.tolist()}
    if str(unit) not in labels:
        return message(f"Unit {html.escape(str(unit))} is not in this layer.", dark=dark)
    own = responses.sel(unit=labels[str(unit)])
    means = salient_words(responses, labels[str(unit)], count=count, least=least)
    if not means.sizes["word"]:
        return message(f"Unit {html.escape(str(unit))} answers to no word.", dark=dark)
    picked = own.sel(word=means["word"])
    figure = go.Figure(layout={"template": template(dark=dark)})
    names = [written(str(name)) for name in picked["name"].values]
    places = np.arange(len(names))
    for sign, color in ((1, POSITIVE), (-1, NEGATIVE)):
        side = (means.values > 0) if sign > 0 else (means.values < 0)
        if not side.any():
            continue
        outer_low, low, high, outer_high = (_band(picked, q)[side] for q in (0.09, 0.25, 0.75, 0.91))
        figure.add_box(
            x=places[side],
            lowerfence=outer_low,
            q1=low,
            median=np.clip(means.values[side], low, high),  # Plotly draws no box around a line that is not in it
            q3=high,
            upperfence=outer_high,
            width=0.5,
            line={"color": color, "width": 1.5},
            fillcolor=_faint(color, 0.25),
            hoverinfo="skip",
            name="positive" if sign > 0 else "negative",
            showlegend=False,
        )
        told = np.stack([picked["count"].values[side], outer_low, low, high, outer_high], axis=1)
        figure.add_scatter(
            x=places[side],
            y=means.values[side],
            mode="markers",
            marker={"symbol": "line-ew-open", "size": 26, "color": color, "line": {"width": 3}},
            customdata=told,
            text=np.array(names)[side],
            hovertemplate="<b>%{text}</b> \u00b7 %{customdata[0]:.0f} times<br>mean response %{y:+.3g}<br>"
            "25 to 75 %: %{customdata[2]:+.3g} to %{customdata[3]:+.3g}<br>"
            "9 to 91 %: %{customdata[1]:+.3g} to %{customdata[4]:+.3g}<extra></extra>",
            name="mean",
            showlegend=False,
        )
    positive = int((means.values > 0).sum())
    if 0 < positive < len(names):
        figure.add_vline(x=positive - 0.5, line={"color": theme(dark=dark).muted, "dash": "dash", "width": 1})
    figure.update_xaxes(tickvals=places, ticktext=names, tickangle=-30, automargin=True)
    figure.update_layout(
        title={
            "text": f"words that unit {html.escape(str(unit))} answers to most",
            "font": {"size": SMALL + 1, "color": theme(dark=dark).muted},
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "pad": {"b": 8},
        },
    )
    figure.update_yaxes(title="response (change of state)", zeroline=True, zerolinecolor=theme(dark=dark).muted)
    figure.update_layout(height=330, hovermode="closest")
    return figure


def co_cluster_agreement(
    study: xr.Dataset | None, metrics: pd.DataFrame, *, epoch: float | None = None, dark: bool = False
) -> go.Figure:
    """How much co-clusters change from one epoch to the next, beside the loss.

    Args:
        study: as `hiddenscope.analyses.cocluster.study_co_clusters` gives it, or None.
        metrics: of the run, indexed by epoch; its first column with "loss" in its name is drawn, each of them if there
            are several.
        epoch: where to draw a line, or None.
        dark: for a dark page.
    """
    if study is None:
        return message("Co-clusters over the epochs appear as soon as they are computed.", dark=dark)
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.1, row_heights=[0.4, 0.6])
    figure.update_layout(template=template(dark=dark))
    losses = [name for name in metrics.columns if "loss" in str(name).lower()]
    look = theme(dark=dark)
    for name, color in zip(losses, class_colors(len(losses), dark=dark), strict=True):
        known = metrics[name].dropna()
        figure.add_scatter(
            x=known.index,
            y=known.values,
            mode="lines+markers",
            name=html.escape(str(name)),
            line={"color": color},
            marker={"size": 4},
            row=1,
            col=1,
        )
    said = [epoch_text(float(value)) for value in study["epoch"].values]
    for name, label, color in (
        ("agreement_units", "units", look.classes[0]),
        ("agreement_words", "words", look.classes[3]),
    ):
        figure.add_scatter(
            x=study["epoch"].values,
            y=study[name].values,
            mode="lines+markers",
            name=f"{label} stay together",
            line={"color": color},
            marker={"size": 5},
            customdata=said,
            hovertemplate="%{y:.2f} at epoch %{customdata}<extra>%{fullData.name}</extra>",
            row=2,
            col=1,
        )
    if epoch is not None:
        figure.add_vline(x=epoch, line={"color": look.accent, "width": 1.5})
    figure.update_yaxes(title="loss", row=1, col=1)
    low = float(np.nanmin([study["agreement_units"].min(), study["agreement_words"].min(), 0.0]))
    figure.update_yaxes(title="agreement (ARI)", range=[min(low, 0.0) - 0.05, 1.05], row=2, col=1)
    figure.update_xaxes(title="epoch", row=2, col=1)
    figure.update_layout(height=330, hovermode="x", legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    return figure


def _band(own: xr.Dataset, quantile: float) -> np.ndarray:
    return np.asarray(own["band"].sel(quantile=quantile, method="nearest").values)


def _faint(color: str, opacity: float) -> str:
    red, green, blue = hex_to_rgb(color)
    return f"rgba({red}, {green}, {blue}, {opacity})"
