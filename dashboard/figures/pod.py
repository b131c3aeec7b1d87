"""Orthogonal modes of hidden states: how many carry the energy, the paths in them, and how classes come apart.

The views that Su & Shlizerman (2019, arXiv:1905.12176) use for encoder and decoder states: paths in three components,
colored by the type of sequence, and the energies of the modes. What is drawn over epochs is in `pod_course`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from hiddenscope.dashboard.figures.template import (
    SMALL,
    class_colors,
    colorbar,
    colorscale,
    epoch_text,
    message,
    template,
    theme,
    unit_colors,
)

Paths = npt.NDArray[np.floating]

LIMIT = 6_000
"""Points of paths that are drawn; more are thinned along the steps."""
_MOST_LINES = 40
_MOST_BARS = 64
_DASHES = {0.90: "dot", 0.95: "dash", 0.99: "longdash"}


def scree(
    energy: xr.DataArray,
    *,
    dimension: xr.DataArray | None = None,
    epoch: float | None = None,
    dark: bool = False,
) -> go.Figure:
    """Each mode's share of the energy: bars and bold line for one epoch, thin cumulative lines for the others.

    Args:
        energy: dims (epoch, mode), shares; NaN for epochs that have diverged.
        dimension: dims (epoch, threshold) with the thresholds as coordinate: how many modes reach each of them.
        epoch: the epoch in front; None or an unknown one stands for the newest.

    >>> shares = xr.DataArray([[0.8, 0.2]], dims=("epoch", "mode"), coords={"epoch": [3.0]})
    >>> [trace.name for trace in scree(shares).data]
    ['share', 'cumulative']
    """
    if not energy.sizes["epoch"]:
        return message("no epoch is decomposed yet", dark=dark)
    at = _position(energy["epoch"].values, epoch)
    shares = energy.isel(epoch=at).values.astype(np.float64)
    if not np.isfinite(shares).all():
        return message(
            f"epoch {epoch_text(float(energy['epoch'][at]))} has diverged: its states are not finite", dark=dark
        )
    if not shares.sum() > 0:
        return message("all states are zero: this layer uses no dimension", dark=dark)
    look = theme(dark=dark)
    reached = np.cumsum(shares)
    shown = int(min(len(shares), max(int(np.searchsorted(reached, 0.995)) + 2, 4), _MOST_BARS))
    modes = np.arange(1, shown + 1)
    figure = go.Figure(layout={"template": template(dark=dark)})
    others = _other_epochs(energy, at, shown, dark=dark)
    figure.add_traces(others)
    if len(others) > 1:
        figure.add_trace(_epoch_key(energy["epoch"].values, dark=dark))
    name = epoch_text(float(energy["epoch"][at]))
    figure.add_bar(
        x=modes,
        y=shares[:shown].astype(np.float32),
        name="share",
        marker={"color": look.accent, "opacity": 0.55},
        hovertemplate=f"mode %{{x}}: %{{y:.2%}} of the energy<br>epoch {name}<extra></extra>",
    )
    figure.add_scatter(
        x=modes,
        y=reached[:shown].astype(np.float32),
        name="cumulative",
        mode="lines+markers",
        line={"color": look.text, "width": 2},
        marker={"size": 4},
        hovertemplate=f"the first %{{x}} hold %{{y:.2%}}<br>epoch {name}<extra></extra>",
    )
    if dimension is not None:
        _thresholds(figure, dimension.isel(epoch=at), shown, dark=dark)
    figure.update_layout(
        showlegend=False, bargap=0.25, margin={"l": 50, "r": 12, "t": 30, "b": 36}, uirevision="pod-scree"
    )
    figure.update_layout(title=_title(f"energy of the modes, epoch {name}", dark=dark))
    figure.update_xaxes(
        title_text="mode",
        range=[0.4, shown + 0.6],
        dtick=1 if shown <= 12 else 4 if shown <= 30 else 10,
        showgrid=False,
    )
    figure.update_yaxes(title_text="share of energy", range=[0, 1.04], tickformat=".0%")
    return figure


def _other_epochs(energy: xr.DataArray, at: int, shown: int, *, dark: bool) -> list[go.Scatter]:
    """Cumulative lines of the other epochs, evenly thinned, colored by epoch."""
    epochs = energy["epoch"].values.astype(np.float64)
    others = [i for i in np.unique(np.linspace(0, len(epochs) - 1, _MOST_LINES).astype(int)) if i != at]
    places = (epochs - epochs.min()) / max(float(np.ptp(epochs)), 1e-9)
    colors = sample_colorscale([color for _, color in colorscale("epoch", dark=dark)], places.tolist())
    lines = []
    for i in others:
        values = np.cumsum(energy.isel(epoch=i).values.astype(np.float64))[:shown]
        if np.isfinite(values).all() and values[-1] > 0:
            lines.append(
                go.Scatter(
                    x=np.arange(1, shown + 1),
                    y=values.astype(np.float32),
                    mode="lines",
                    line={"color": colors[i], "width": 1},
                    opacity=0.8,
                    name=f"epoch {epoch_text(float(epochs[i]))}",
                    hovertemplate="the first %{x} hold %{y:.2%}<extra>%{fullData.name}</extra>",
                )
            )
    return lines


def _epoch_key(epochs: npt.NDArray[Any], *, dark: bool) -> go.Scatter:
    """No points, but the color bar of the epochs."""
    marker = {
        "color": [float(epochs[0])],
        "cmin": float(epochs.min()),
        "cmax": float(epochs.max()),
        "colorscale": colorscale("epoch", dark=dark),
        "colorbar": {**colorbar(title="epoch", dark=dark), "thickness": 8, "nticks": 5, "x": 1.0, "xpad": 4},
        "showscale": True,
    }
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name="epoch", hoverinfo="skip")


def _thresholds(figure: go.Figure, dimension: xr.DataArray, shown: int, *, dark: bool) -> None:
    look = theme(dark=dark)
    for threshold, count in zip(dimension["threshold"].values, dimension.values, strict=True):
        dash = _DASHES.get(round(float(threshold), 2), "dash")
        figure.add_shape(
            type="line",
            x0=0.4,
            x1=shown + 0.6,
            y0=threshold,
            y1=threshold,
            line={"color": look.muted, "width": 1, "dash": dash},
        )
        if 0 < count <= shown:
            figure.add_scatter(
                x=[int(count)],
                y=[float(threshold)],
                mode="markers+text",
                text=[f"{int(count)}"],
                textposition="bottom right",
                textfont={"size": SMALL, "color": look.text},
                marker={"color": look.classes[3], "size": 9, "symbol": "diamond"},
                name=f"{threshold:.0%}",
                hovertemplate=f"{int(count)} modes hold {threshold:.0%}<extra></extra>",
            )


def trajectories(
    decoder: Paths,
    *,
    encoder: Paths | None = None,
    labels: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    means: bool = True,
    title: str = "",
    dark: bool = False,
) -> go.Figure:
    """Paths in the first three modes, colored by class: the encoder's dotted and light, the decoder's solid.

    Crosses mark the mean state of each class of the decoder, its cluster; dots, where each encoder path begins.

    Args:
        decoder: shape (step, sample, component), or the only layer's; NaN past the end of a sequence.
        encoder: the same samples and components.
        labels: the class of each sample; None draws all in one color.
        class_names: one name for each class code.
        means: the mean path of each class, drawn over faint single ones; otherwise the single ones alone.
        title: of the figure.

    >>> [trace.name for trace in trajectories(np.zeros((4, 2, 3)), labels=[0, 1], class_names=("a", "b")).data][:2]
    ['a', 'a']
    """
    if decoder.size == 0 or not np.isfinite(decoder).any():
        return message("there is no finite state to draw in this epoch", dark=dark)
    codes = np.zeros(decoder.shape[1], dtype=np.int64) if labels is None else np.asarray(labels)
    classes = np.unique(codes)
    names = {
        int(c): str(class_names[c]) if class_names is not None and 0 <= c < len(class_names) else str(c)
        for c in classes
    }
    if labels is None:
        names = {0: "paths"}
    palette = _palette(int(classes.max()) + 1, dark=dark)
    look = theme(dark=dark)
    figure = go.Figure(layout={"template": template(dark=dark)})
    parts = [("decoder", decoder)] if encoder is None else [("encoder", encoder), ("decoder", decoder)]
    stride = max(1, -(-sum(part.shape[0] * part.shape[1] for _, part in parts) // LIMIT))
    for role, part in parts:
        for code in classes:
            paths = _three(part[:, codes == code])
            style = {"color": palette[int(code)], "dash": "dot" if role == "encoder" else "solid"}
            about = names[int(code)] + (f", {role}" if encoder is not None else "")
            common: dict[str, Any] = {"name": names[int(code)], "legendgroup": str(code), "mode": "lines"}
            faint = 0.16 if means else (0.45 if role == "encoder" else 0.8)
            figure.add_trace(
                _line(
                    paths[::stride], opacity=faint, line={**style, "width": 2}, about=about, showlegend=False, **common
                )
            )
            if means:
                mean = _class_mean(paths)[:, None]
                strong = 0.75 if role == "encoder" else 1.0
                figure.add_trace(
                    _line(
                        mean,
                        opacity=strong,
                        line={**style, "width": 5},
                        about=f"mean of {about}",
                        showlegend=False,
                        **common,
                    )
                )
            if role == "encoder":
                figure.add_trace(_dots(paths[:1], palette[int(code)], "circle", 2, f"{about}, first step", **common))
    for code in classes:
        center = _class_mean(_three(decoder[:, codes == code]).reshape(1, -1, 3))
        dot = _dots(
            center[:, None],
            palette[int(code)],
            "cross",
            5,
            f"cluster of {names[int(code)]}",
            name=names[int(code)],
            legendgroup=str(code),
        )
        figure.add_trace(dot.update(showlegend=labels is not None))
    axes = {f"{axis}axis": {"title": {"text": f"mode {k + 1}"}} for k, axis in enumerate("xyz")}
    camera = {"eye": {"x": 1.0, "y": 1.0, "z": 0.65}, "projection": {"type": "orthographic"}}
    ratio = _aspect(np.concatenate([_three(part).reshape(-1, 3) for _, part in parts]))
    figure.update_scenes(
        aspectmode="manual", aspectratio=ratio, camera=camera, dragmode="turntable", domain_x=[0, 0.86], **axes
    )
    figure.update_layout(
        margin={"l": 0, "r": 0, "t": 30, "b": 0},
        legend={"x": 1, "xanchor": "right", "y": 0.98, "itemsizing": "constant", "font": {"color": look.text}},
        title=_title(title, dark=dark),
        uirevision="pod-paths",
    )
    return figure


def _aspect(points: Paths) -> dict[str, float]:
    """Equal scales on all axes, as large as the scene allows; an axis without extent gets a little."""
    known = points[np.isfinite(points).all(axis=1)]
    extent = np.maximum(np.ptp(known, axis=0), 1e-9) if len(known) else np.ones(3)
    ratio = 1.5 * np.maximum(extent / extent.max(), 0.05)
    return dict(zip("xyz", ratio.tolist(), strict=True))


def _palette(count: int, *, dark: bool) -> tuple[str, ...]:
    """A color for each class, no two alike however many there are."""
    return class_colors(count, dark=dark) if count <= len(theme(dark=dark).classes) else unit_colors(count)


def _three(paths: Paths) -> Paths:
    """The first three components, zeros where there are fewer."""
    kept = paths[..., :3]
    missing = 3 - kept.shape[-1]
    return np.pad(kept, [(0, 0)] * (kept.ndim - 1) + [(0, missing)]) if missing else kept


def _line(paths: Paths, *, about: str, **style: Any) -> go.Scatter3d:
    """Paths (step, sample, 3) as one broken line."""
    broken = np.concatenate([paths, np.full((1, *paths.shape[1:]), np.nan)]).transpose(1, 0, 2).reshape(-1, 3)
    x, y, z = broken.astype(np.float32).T
    return go.Scatter3d(x=x, y=y, z=z, connectgaps=False, hovertemplate=f"{about}<extra></extra>", **style)


def _dots(points: Paths, color: str, symbol: str, size: int, about: str, **style: Any) -> go.Scatter3d:
    x, y, z = points.reshape(-1, 3).astype(np.float32).T
    style = {**style, "mode": "markers", "showlegend": False}
    marker = {"color": color, "symbol": symbol, "size": size, "line": {"width": 0}}
    return go.Scatter3d(x=x, y=y, z=z, marker=marker, hovertemplate=f"{about}<extra></extra>", **style)


def _class_mean(paths: Paths) -> Paths:
    """The mean over samples of (step, sample, component), padding left out; NaN where nothing is left."""
    there = np.isfinite(paths)
    count = there.sum(axis=1)
    total = np.where(there, paths, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def modes(
    spatial: xr.DataArray,
    temporal: Sequence[tuple[str, Paths]],
    labels: npt.ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    picked: Sequence[str] = (),
    count: int = 3,
    dark: bool = False,
) -> go.Figure:
    """Spatial modes at the left, one bar per unit; temporal modes at the right, one mean curve per class.

    Args:
        spatial: dims (unit, component); bars carry the unit's label as customdata, so that a click picks it.
        temporal: for each part (``"encoder"``, ``"decoder"``, or one layer) its paths (step, sample, component), drawn
            one after the other on the axis of steps.
        labels: the class of each sample.
        class_names: one name for each class code.
        picked: labels of units whose bars stand out.
        count: modes that are shown.
    """
    count = min(count, spatial.sizes["component"])
    if not np.isfinite(spatial.values).all() or count == 0:
        return message("this epoch has diverged: it has no modes", dark=dark)
    look = theme(dark=dark)
    figure = make_subplots(
        rows=count,
        cols=2,
        shared_xaxes=True,
        horizontal_spacing=0.09,
        vertical_spacing=0.05,
        column_widths=[0.42, 0.58],
    )
    names = [str(unit) for unit in spatial["unit"].values]
    chosen = set(picked)
    colors = [look.classes[3] if name in chosen else look.accent for name in names]
    codes = None if labels is None else np.asarray(labels)
    classes = np.unique(codes) if codes is not None else np.zeros(1, dtype=np.int64)
    palette = _palette(int(classes.max()) + 1, dark=dark)
    for k in range(count):
        bars = go.Bar(
            x=np.arange(len(names)),
            y=spatial.values[:, k].astype(np.float32),
            customdata=names,
            marker={"color": colors, "line": {"width": 0}},
            hovertemplate=f"unit %{{customdata}}<br>mode {k + 1}: %{{y:.3f}}<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(bars, row=k + 1, col=1)
        start = 0
        for part, paths in temporal:
            steps = start + np.arange(len(paths))
            for code in classes:
                members = paths[:, codes == code] if codes is not None else paths
                mean = _class_mean(members[:, :, k : k + 1])[:, 0]
                known = class_names is not None and 0 <= code < len(class_names)
                label = str(class_names[int(code)]) if known and class_names is not None else str(code)
                line = go.Scatter(
                    x=steps,
                    y=mean.astype(np.float32),
                    mode="lines",
                    line={"color": palette[int(code)], "width": 1.6, "dash": "dot" if part == "encoder" else "solid"},
                    name=label if codes is not None else "mean",
                    legendgroup=str(code),
                    showlegend=False,
                    hovertemplate=f"{label}, {part}<br>step %{{x}}: %{{y:.3f}}<extra></extra>",
                )
                figure.add_trace(line, row=k + 1, col=2)
            start += len(paths)
        figure.update_yaxes(title_text=f"mode {k + 1}", title_standoff=2, nticks=4, row=k + 1, col=1)
        figure.update_yaxes(nticks=4, row=k + 1, col=2)
    figure.update_xaxes(title_text="unit", row=count, col=1)
    figure.update_xaxes(title_text="step", row=count, col=2)
    places = np.unique(np.linspace(0, len(names) - 1, min(len(names), 8)).astype(int))
    figure.update_xaxes(tickvals=places, ticktext=[names[i] for i in places], showgrid=False, col=1)
    if count:
        figure.add_annotation(text="spatial modes", **_over(0.0, look.text))
        figure.add_annotation(text="temporal modes: mean coordinate of each class", **_over(0.47, look.text))
    figure.update_layout(
        template=template(dark=dark), margin={"l": 58, "r": 12, "t": 26, "b": 36}, bargap=0.15, uirevision="pod-modes"
    )
    return figure


def _position(epochs: npt.NDArray[Any], epoch: float | None) -> int:
    """Where the epoch is, or the one nearest before it; the newest for None."""
    if epoch is None:
        return len(epochs) - 1
    return int(np.clip(np.searchsorted(epochs, epoch + 1e-9, side="right") - 1, 0, len(epochs) - 1))


def _title(text: str, *, dark: bool) -> dict[str, Any]:
    look = theme(dark=dark)
    return {
        "text": text,
        "x": 0,
        "xref": "paper",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 8, "l": 2},
        "font": {"size": SMALL + 1, "color": look.text},
    }


def _over(x: float, color: str) -> dict[str, Any]:
    return {
        "x": x,
        "y": 1.0,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": SMALL + 1, "color": color},
    }
