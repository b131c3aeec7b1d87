"""The full set of the paper's figures for one recorded classifier: pictures, entropies, clusters, confusion.

The figures of MM-PHATE (Xie et al. 2024) for one network, and the statistics that tie them to the loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.experiments.experiment import Context

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from hiddenscope.analyses.clusters import UnitClusters
    from hiddenscope.embeddings.baselines import Method
    from hiddenscope.experiments.classifiers import Recipe
    from hiddenscope.experiments.datasets.sequences import Sequences, Split
    from hiddenscope.run import Run

METHODS: tuple[Method, ...] = ("mmphate", "pca", "tsne", "isomap")
MOST_NODES = {"tsne": 3_000, "isomap": 3_000}
"""Nodes that a method is given; of a larger trace, it sees fewer epochs. It would take hours otherwise."""


def add_methods(parser: argparse.ArgumentParser) -> None:
    """The option that says by which methods the trace is drawn."""
    parser.add_argument(
        "--methods",
        action="extend",
        nargs="+",
        choices=METHODS,
        help=f"methods to draw by, beside mmphate (default: {' '.join(METHODS)}; with --quick: mmphate pca)",
    )


def draw_everything(context: Context, run: Run, trace: xr.DataArray, split: Split, recipe: Recipe) -> None:
    """Write every figure and table of a run.

    Args:
        context: where to write.
        run: as `hiddenscope.experiments.classifiers.trained` gives it, with ``model.pt`` beside its store.
        trace: the part of the run that is embedded.
        split: what it was trained and judged on.
        recipe: of the network.
    """
    import pandas as pd

    from hiddenscope.analyses.association import associate_with_metrics
    from hiddenscope.analyses.clusters import cluster_units
    from hiddenscope.dashboard.figures import curves
    from hiddenscope.dashboard.figures.embedding import embedding as cloud
    from hiddenscope.dashboard.figures.grid import embedding_grid
    from hiddenscope.dashboard.picture import most_active_class
    from hiddenscope.experiments.material import kept_picture, mean_over
    from hiddenscope.experiments.measuring import TITLES, fidelity_row
    from hiddenscope.experiments.nulls import order_correlation

    metrics = run.metrics()
    made: dict[str, xr.Dataset] = {}
    rows, associations = [], []
    wanted = context.arguments.methods or (METHODS[:2] if context.quick else METHODS)
    methods = [method for method in METHODS if method in wanted or method == "mmphate"]
    for method in context.progress(methods, "pictures"):
        options = {"theta": 0.8} if method == "tsne" else None
        part = fewer_epochs(trace, MOST_NODES.get(method, trace.size))
        made[method] = kept_picture(context, "trace", part, method, options=options)
        embedding = made[method]["embedding"]
        rows.append(
            {
                "method": TITLES[method],
                "epochs": part.sizes["epoch"],
                **fidelity_row(made[method]),
                "order of epochs": order_correlation(embedding, "epoch"),
                "order of steps": order_correlation(embedding, "step"),
                "note": made[method].attrs["note"],
            }
        )
        for name in ("intra_step_entropy", "inter_step_entropy"):
            table = associate_with_metrics(made[method][name], metrics).reset_index()
            table.insert(0, "entropy", name)
            table.insert(0, "method", TITLES[method])
            associations.append(table)
    context.table("methods", pd.DataFrame(rows))
    context.table("associations", pd.concat(associations, ignore_index=True))
    context.table("metrics", metrics, index=True)
    context.table("phases", phase_rows(trace, made["mmphate"]["intra_step_entropy"].mean("step")))
    names = split.train.label_names
    active = most_active_class(trace).rename("most active class")
    colors: dict[str, str | xr.DataArray] = {"epoch": "epoch", "step": "step", "unit": "unit", "class": active}
    grid = embedding_grid(
        {TITLES[method]: one["embedding"] for method, one in made.items()}, colors, class_names={"class": names}
    )
    context.figure("pictures", grid, width=260 * len(made) + 200, height=1120)
    main = made["mmphate"]
    context.figure("mmphate", cloud(main["embedding"]), width=900, height=700, title="MM-PHATE, by epoch")
    context.figure("animation", animation(main["embedding"]), width=900, height=700, title="MM-PHATE, epoch by epoch")
    figure = curves(metrics, main["intra_step_entropy"], main["inter_step_entropy"])
    context.figure("curves", figure, width=1000, height=900)
    context.figure("entropies", _by_method(made, metrics), width=1000, height=300 * ((len(made) + 1) // 2))
    clusters = cluster_units(main["inter_step_entropy"])
    context.figure("clusters", cluster_figure(main["inter_step_entropy"], clusters), width=1000, height=420)
    _clusters(context, run, split, recipe, clusters)
    accuracy = float(metrics["val_accuracy"].iloc[-1])
    context.number("held-out accuracy", accuracy)
    context.number("best held-out accuracy of any epoch", float(metrics["val_accuracy"].max()))
    context.number("training accuracy", float(metrics["train_accuracy"].iloc[-1]))
    context.number("unit clusters", int(clusters.centers.sizes["cluster"]))
    intra = mean_over(main["intra_step_entropy"], "step")
    peak: Any = intra.idxmax()
    context.number("intra-step entropy, epoch of its peak", float(peak))


def phase_rows(trace: xr.DataArray, entropy: xr.DataArray) -> pd.DataFrame:
    """Phases of a training, in curves of its activations and of its picture; p-values pay for the number of curves.

    Args:
        trace: dims (epoch, step, unit, sample).
        entropy: mean intra-step entropy of the picture of that trace, dims (epoch,).
    """
    import pandas as pd

    from hiddenscope.analyses.phases import activation_curves, phases_of_all

    found = phases_of_all({**activation_curves(trace.reset_coords(drop=True)), "intra-step entropy (picture)": entropy})
    rows = []
    for name in found["curve"].values:
        one = found.sel(curve=name)
        pieces = zip(one["phase_kind"].values, one["phase_first"].values, one["phase_last"].values, strict=True)
        text = ", ".join(f"{kind} {first:g} to {last:g}" for kind, first, last in pieces if kind)
        rows.append({"curve": str(name), "p": float(one["p_value"]), "phases": text})
    return pd.DataFrame(rows)


def fewer_epochs(trace: xr.DataArray, most: int) -> xr.DataArray:
    """A trace of about ``most`` nodes at most: epochs are left out evenly, never the first or the last.

    >>> trace = xr.DataArray(np.zeros((9, 2, 5, 3)), dims=("epoch", "step", "unit", "sample"))
    >>> fewer_epochs(trace, 50).sizes["epoch"]
    5
    """
    from hiddenscope.dashboard.figures.decimate import evenly

    each = trace.sizes["step"] * trace.sizes["unit"]
    return trace.isel(epoch=evenly(trace.sizes["epoch"], max(4, most // each)))


def _by_method(made: Mapping[str, xr.Dataset], metrics: pd.DataFrame) -> go.Figure:
    """Mean intra-step entropy of every method, each in its own panel with the held-out accuracy."""
    from plotly.subplots import make_subplots

    from hiddenscope.dashboard.figures.template import LIGHT, template
    from hiddenscope.experiments.measuring import TITLES

    rows = (len(made) + 1) // 2
    figure = make_subplots(
        rows=rows,
        cols=2,
        subplot_titles=[TITLES[method] for method in made],
        specs=[[{"secondary_y": True}] * 2 for _ in range(rows)],
        vertical_spacing=0.3 / rows,
        horizontal_spacing=0.13,
    )
    for number, one in enumerate(made.values()):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        mean = one["intra_step_entropy"].mean("step")
        shown = {"legendgroup": "entropy", "showlegend": number == 0, "name": "mean intra-step entropy"}
        line = {"color": LIGHT.accent, "width": 2}
        figure.add_scatter(x=mean["epoch"].values, y=mean.values, mode="lines", line=line, **shown, **place)
        figure.add_scatter(
            x=metrics.index,
            y=metrics["val_accuracy"],
            mode="lines",
            line={"color": LIGHT.classes[3], "width": 1.5},
            name="held-out accuracy",
            showlegend=number == 0,
            secondary_y=True,
            **place,
        )
        figure.update_yaxes(title_text="nats", secondary_y=False, **place)
        figure.update_yaxes(title_text="accuracy", range=[0, 1], showgrid=False, secondary_y=True, **place)
    figure.update_layout(
        template=template(dark=False),
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom"},
        margin={"l": 56, "r": 56, "t": 60, "b": 40},
    )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(title_text="epoch")
    return figure


def cluster_figure(trajectories: xr.DataArray, clusters: UnitClusters) -> go.Figure:
    """Inter-step entropy of every unit in the color of its cluster, and the centers of the clusters.

    Args:
        trajectories: dims (epoch, unit), in nats.
        clusters: of these units.
    """
    import plotly.graph_objects as go

    from hiddenscope.dashboard.figures.template import class_colors, template

    names = [str(name) for name in clusters.centers["cluster"].values]
    colors = dict(zip(names, class_colors(len(names), dark=False), strict=True))
    figure = go.Figure(layout={"template": template(dark=False)})
    epochs = trajectories["epoch"].values.astype(float)
    for unit, name in zip(trajectories["unit"].values, clusters.names.values, strict=True):
        if str(name) not in colors:
            continue
        values = trajectories.sel(unit=unit).values
        line = {"color": colors[str(name)], "width": 1}
        figure.add_scatter(x=epochs, y=values, mode="lines", line=line, opacity=0.35, name=f"{unit}", showlegend=False)
    for name in names:
        values = clusters.centers.sel(cluster=name).values
        count = int((clusters.names.values == name).sum())
        line = {"color": colors[name], "width": 3}
        figure.add_scatter(x=epochs, y=values, mode="lines", line=line, name=f"cluster {name}: {count} units")
    figure.update_layout(margin={"l": 56, "r": 16, "t": 24, "b": 40})
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="inter-step entropy (nats)")
    return figure


def animation(embedding: xr.DataArray, *, most_frames: int = 40) -> go.Figure:
    """The picture epoch by epoch, as frames to be played; every frame in the same box.

    Args:
        embedding: dims (epoch, step, unit, component), three components.
        most_frames: more epochs than these are thinned evenly.
    """
    import plotly.graph_objects as go

    from hiddenscope.dashboard.figures.decimate import evenly
    from hiddenscope.dashboard.figures.template import colorscale, epoch_text, template

    named = embedding.transpose("epoch", "step", "unit", "component")
    named = named.isel(epoch=evenly(named.sizes["epoch"], most_frames))
    steps = np.repeat(named["step"].values, named.sizes["unit"])
    marker = {"size": 3, "color": steps, "colorscale": colorscale("step", dark=False), "colorbar": {"title": "step"}}

    def points(number: int) -> go.Scatter3d:
        xyz = named.isel(epoch=number).values.reshape(-1, 3)
        return go.Scatter3d(x=xyz[:, 0], y=xyz[:, 1], z=xyz[:, 2], mode="markers", marker=marker, showlegend=False)

    texts = [epoch_text(float(epoch)) for epoch in named["epoch"].values]
    frames = [go.Frame(data=[points(number)], name=text) for number, text in enumerate(texts)]
    low, high = np.nanmin(named.values, axis=(0, 1, 2)), np.nanmax(named.values, axis=(0, 1, 2))
    last = len(frames) - 1
    figure = go.Figure(data=[points(last)], frames=frames, layout={"template": template(dark=False)})
    go_on = {"frame": {"duration": 250, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    stay = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
    figure.update_layout(
        scene={f"{axis}axis": {"range": [float(low[i]), float(high[i])]} for i, axis in enumerate("xyz")},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        updatemenus=[{"type": "buttons", "buttons": [{"label": "play", "method": "animate", "args": [None, go_on]}]}],
        sliders=[
            {
                "active": last,
                "currentvalue": {"prefix": "epoch "},
                "steps": [{"label": text, "method": "animate", "args": [[text], stay]} for text in texts],
            }
        ],
    )
    return figure


def _clusters(context: Context, run: Run, split: Split, recipe: Recipe, clusters: UnitClusters) -> None:
    """What each cluster of units can do alone, and the network without it, on training and held-out data."""
    names = [str(name) for name in clusters.centers["cluster"].values]
    context.number("silhouette of the unit clusters", clusters.silhouette)
    found = context.cached(
        "silencing",
        {"run": run.fingerprint(run.layers[0]), "clusters": [str(name) for name in clusters.names.values], "modes": 2},
        lambda: _silenced(context, run, split, recipe, clusters),
    )
    sizes = {name: int((clusters.names.values == name).sum()) for name in names}
    context.table("silencing", silencing_table(found, sizes))
    context.table("units", unit_table(found, clusters.names))
    shown = sorted(names, key=lambda name: -sizes[name])[:5]
    figure = confusion_figure(found, {name: sizes[name] for name in sorted(shown)}, split.train.label_names)
    context.figure("confusion", figure, width=250 * (len(shown) + 1) + 150, height=620)


def _silenced(context: Context, run: Run, split: Split, recipe: Recipe, clusters: UnitClusters) -> xr.Dataset:
    from pathlib import Path

    from hiddenscope.analyses.models import ModelAccess
    from hiddenscope.analyses.silencing import silence_clusters
    from hiddenscope.experiments.classifiers import LAYER, load

    access = ModelAccess(load(Path(run.path).parent, split, recipe))
    data = {"training": _pair(split.train), "held out": _pair(split.held_out)}
    most = 64 if context.quick else 512
    return silence_clusters(access, LAYER, data, clusters.names, most_samples=most)


def _pair(part: Sequences) -> tuple[object, object]:
    import torch

    return torch.from_numpy(part.inputs), torch.from_numpy(part.labels)


def silencing_table(found: xr.Dataset, sizes: Mapping[str, int]) -> pd.DataFrame:
    """Accuracy and loss of the whole network, of each cluster of units alone, and without each, on every part.

    Args:
        found: as `hiddenscope.analyses.silencing.silence_clusters` gives it.
        sizes: units of each cluster.

    Returns:
        A row per part, way of silencing and selection of units; ``count`` is how many units speak.
    """
    import pandas as pd

    rows = []
    total = sum(sizes.values())
    for part in found["part"].values:
        whole = {"accuracy": accuracy(found["confusion_whole"].sel(part=part).values)}
        whole["loss"] = float(found["loss_whole"].sel(part=part))
        rows.append({"part": part, "silenced in": "", "units": "all", "count": total, **whole})
        for mode in found["mode"].values:
            for how in ("alone", "without"):
                for name, count in sizes.items():
                    place = {"part": part, "mode": mode, "cluster": name}
                    rows.append(
                        {
                            "part": part,
                            "silenced in": mode,
                            "units": f"{name} alone" if how == "alone" else f"without {name}",
                            "count": count if how == "alone" else total - count,
                            "accuracy": accuracy(found[f"confusion_{how}"].sel(place).values),
                            "loss": float(found[f"loss_{how}"].sel(place)),
                        }
                    )
    return pd.DataFrame(rows)


def unit_table(found: xr.Dataset, clusters: xr.DataArray) -> pd.DataFrame:
    """What is lost without each single unit, the most important one first.

    Args:
        found: as `hiddenscope.analyses.silencing.silence_clusters` gives it.
        clusters: name of each unit's cluster, dims (unit,).
    """
    import pandas as pd

    frame = pd.DataFrame({"unit": found["unit"].values, "cluster": clusters.values})
    for part in found["part"].values:
        for mode in found["mode"].values:
            at = {"part": part, "mode": mode}
            frame[f"loss gained, {part}, {mode}"] = found["unit_loss"].sel(at).values
            frame[f"accuracy lost, {part}, {mode}"] = found["unit_accuracy"].sel(at).values
    order = np.argsort(-found["importance"].values, kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def accuracy(counts: npt.NDArray[np.integer[Any]]) -> float:
    """Share of right answers in a matrix of counts (true, predicted).

    >>> accuracy(np.array([[3, 1], [0, 4]]))
    0.875
    """
    return float(np.trace(counts) / counts.sum())


def confusion_figure(found: xr.Dataset, sizes: Mapping[str, int], names: Sequence[str]) -> go.Figure:
    """Confusion matrices, each row (true class) adding up to 1: a row per part, a column for the whole and per cluster.

    Args:
        found: as `hiddenscope.analyses.silencing.silence_clusters` gives it; its first way of silencing is shown.
        sizes: units of each cluster that is shown.
        names: of the classes.
    """
    from plotly.subplots import make_subplots

    from hiddenscope.dashboard.figures.template import colorscale, template

    parts = [str(part) for part in found["part"].values]
    one = found.isel(mode=0)
    columns = {"all units": one["confusion_whole"]}
    for name, count in sizes.items():
        columns[f"{name} alone ({count})"] = one["confusion_alone"].sel(cluster=name)
    titles = [
        f"{title}: {accuracy(counts.sel(part=part).values):.2f}" for part in parts for title, counts in columns.items()
    ]
    figure = make_subplots(
        rows=len(parts),
        cols=len(columns),
        subplot_titles=titles,
        row_titles=parts,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.1,
    )
    for row, part in enumerate(parts, start=1):
        for column, counts in enumerate(columns.values(), start=1):
            matrix = counts.sel(part=part).values.astype(np.float64)
            shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            figure.add_heatmap(
                z=shares,
                x=list(names),
                y=list(names),
                zmin=0,
                zmax=1,
                colorscale=colorscale("value", dark=False),
                showscale=row == column == 1,
                colorbar={"thickness": 10, "x": 1.04, "title": "share"},
                row=row,
                col=column,
            )
    figure.update_layout(template=template(dark=False), margin={"l": 70, "r": 90, "t": 40, "b": 70})
    figure.update_annotations(font_size=12)
    figure.update_yaxes(autorange="reversed")
    figure.update_yaxes(title_text="true class", col=1)
    figure.update_xaxes(title_text="answer", row=len(parts))
    return figure
