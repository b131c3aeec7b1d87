"""Orthogonal modes as a panel: paths in the modes, how classes come apart over the epochs, and how many modes it takes.

What is stored are the modes of every epoch (see `hiddenscope.analyses.pod`); the paths of the epoch under the cursor
are projected onto them when they are looked at, from one epoch of the recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr
from dash import html

from hiddenscope.dashboard.figures.pod import Paths, modes, scree, trajectories
from hiddenscope.dashboard.figures.pod_course import progress, segmentation_strip
from hiddenscope.dashboard.figures.template import epoch_text, message
from hiddenscope.dashboard.panels.graph import graph
from hiddenscope.dashboard.panels.panel import Panel, Scene

OWN = "own, turned to the epoch before"
NEWEST = "newest epoch's, for all"
SORTED = "own, sorted by energy"
MEANS = "class means"
SINGLE = "every sequence"
_NO_MODES = "the modes are not computed yet"


def draw(scene: Scene) -> list[Any]:
    """Paths and time course side by side, scree and modes below, and a segmentation where one is stored."""
    found, classes = scene.results.get("pod"), scene.results.get("separability")
    segments = scene.results.get("segmentation")
    course = progress(found, classes, scene.view.metrics, epoch=scene.epoch, dark=scene.dark)
    if found is None or not found.sizes["epoch"]:
        waiting = message(_NO_MODES, dark=scene.dark)
        tiles = [graph("pod-paths", waiting, 430), graph({"type": "panel-epochs", "name": "pod-course"}, course, 430)]
        return [html.Div(tiles, className="pod-tiles")]
    at = newest_at(found, scene.epoch)
    paths, spatial, labels = projected(scene, found, at)
    decoder = paths[-1][1]
    encoder = paths[0][1] if len(paths) == 2 else None
    names = scene.view.class_names
    name = epoch_text(float(found["epoch"][at]))
    picture = trajectories(
        decoder,
        encoder=encoder,
        labels=labels,
        class_names=names,
        means=scene.options.get("show", MEANS) == MEANS,
        title=f"epoch {name}" + (", encoder dotted" if encoder is not None else ""),
        dark=scene.dark,
    )
    share = scree(found["energy"], dimension=found["dimension"], epoch=scene.epoch, dark=scene.dark)
    bars = modes(spatial, paths, labels, class_names=names, picked=scene.units, dark=scene.dark)
    tiles = [
        graph("pod-paths", picture, 430),
        graph({"type": "panel-epochs", "name": "pod-course"}, course, 430),
        graph("pod-scree", share, 340),
        graph({"type": "panel-units", "name": "pod-modes"}, bars, 340),
    ]
    body: list[Any] = [
        html.Div(caption(found, classes, at), className="card-foot"),
        html.Div(tiles, className="pod-tiles"),
    ]
    if segments is not None:
        body.append(graph("pod-segments", _strip(segments, dark=scene.dark), 260))
    return body


def newest_at(found: xr.Dataset, epoch: float | None) -> int:
    """Position of the epoch, of the nearest studied one before it, or of the newest for None."""
    epochs = found["epoch"].values
    if epoch is None:
        return len(epochs) - 1
    return int(np.clip(np.searchsorted(epochs, epoch + 1e-9, side="right") - 1, 0, len(epochs) - 1))


def projected(
    scene: Scene, found: xr.Dataset, at: int
) -> tuple[list[tuple[str, Paths]], xr.DataArray, npt.NDArray[np.integer] | None]:
    """Paths of each part in the chosen basis, that basis (unit, component), and the class of each sample."""
    spatial = basis(found, at, scene.options.get("basis", OWN))
    epoch = float(found["epoch"][at])
    parts = [str(part) for part in found.attrs.get("parts", [scene.view.layer])]
    roles = ["encoder", "decoder"] if len(parts) == 2 else [parts[0]]
    paths = []
    for role, part in zip(roles, parts, strict=True):
        states = scene.run.trace(part, epochs=epoch).values[0].astype(np.float64)
        paths.append((role, np.einsum("tus,uk->tsk", states, spatial.values)))
    labels = scene.run.labels
    return paths, spatial, None if labels is None else labels.values


def basis(found: xr.Dataset, at: int, kind: str) -> xr.DataArray:
    """Modes (unit, component) of an epoch in the chosen sense, float64."""
    if kind == NEWEST:
        good = np.flatnonzero(~found["skipped"].values)
        at = int(good[-1]) if good.size else at
    spatial = found["modes"].isel(epoch=at).astype(np.float64)
    if kind == OWN:
        turn = found["rotation"].isel(epoch=at).values.astype(np.float64)
        spatial = spatial.copy(data=spatial.values @ turn)
    return spatial


def caption(found: xr.Dataset, classes: xr.Dataset | None, at: int) -> str:
    """The epoch's numbers in a sentence."""
    here = found.isel(epoch=at)
    name = epoch_text(float(here["epoch"]))
    if bool(here["skipped"]):
        return f"epoch {name}: diverged, its states are not finite"
    counts = dict(zip(here["threshold"].values.tolist(), here["dimension"].values.tolist(), strict=True))
    units = found.sizes["unit"]
    said = [
        f"epoch {name}: " + ", ".join(f"{count} modes hold {share:.0%}" for share, count in counts.items()),
        f"{float(here['percent_used'][0]):.0f} % of {units} units' dimensions",
        f"participation ratio {float(here['participation_ratio']):.1f}",
    ]
    if classes is not None and float(here["epoch"]) in classes["epoch"].values:
        row = classes.sel(epoch=float(here["epoch"]))
        said.append(f"silhouette {float(row['silhouette']):.2f}, nearest centroid {float(row['nearest_centroid']):.0%}")
    if "steering" in here:
        ratio = here["steering"].values
        below = np.flatnonzero(np.logical_and.accumulate((ratio < 1)[::-1])[::-1])
        step = int(here["encoder_step"].values[below[0]]) if below.size else None
        others = "than to any other" + ("" if step is None else f" from its step {step} on")
        said.append(
            f"the encoder is {'never' if step is None else ''} nearer to its own cluster {others}".replace("  ", " ")
        )
    return " · ".join(said)


def _strip(found: xr.Dataset, *, dark: bool) -> go.Figure:
    return segmentation_strip(
        found["label"].values,
        found["truth"].values if "truth" in found else None,
        names=found.attrs.get("names"),
        cuts=found["cut"].values,
        errors=found["error"].values if "error" in found else None,
        dark=dark,
    )


PANEL = Panel(
    name="pod",
    title="Modes (POD)",
    about=(
        "The layer's states as paths in the orthogonal directions that carry most of their energy: how many it takes, "
        "and whether sequences of different classes part ways. Click on a curve to go to its epoch."
    ),
    methods=("pod", "separability", "segmentation"),
    draw=draw,
    controls={"basis": ("basis", (OWN, NEWEST, SORTED)), "show": ("show", (MEANS, SINGLE))},
    follows_cursor=True,
)
