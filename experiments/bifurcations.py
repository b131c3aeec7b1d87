"""``hiddenscope experiment bifurcations``: eight synthetic traces with a known turning point, drawn by four methods.

After the synthetic benchmark of MM-PHATE (Xie et al. 2024, version 2): grids of pictures, the table of preserved
neighborhoods, and, ours, whether the turning points are found.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, cast

import xarray as xr

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from hiddenscope.embeddings.baselines import Method

PUBLISHED = "hopf_bif__pitchfork_bif__no_warp"
PUBLISHED_INTER = {"MM-PHATE": (0.1395, 0.2516), "PCA": (0.1487, 0.1434), "t-SNE": (0.2460, 0.2024)}
"""What the paper reports for that scenario, at 10 and at 40 neighbors."""
KS = (10, 40)
INTRA_K = 2
"""Of 6 units: with 5 or more neighbors of the 5 others the share is 1 whatever the picture."""
THINNED: tuple[Method, ...] = ("mmphate", "pca", "tsne", "umap")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scenario", action="append", help="one scenario instead of all eight; may be given several times"
    )
    parser.add_argument(
        "--stride",
        type=int,
        default=10,
        help="take every so many steps where t-SNE and UMAP take part (default: %(default)s)",
    )


def _run(context: Context) -> None:
    import pandas as pd

    from hiddenscope.experiments.datasets.bifurcations import SCENARIOS, simulate

    wanted = context.arguments.scenario or []
    for scenario in wanted:
        if scenario not in SCENARIOS:
            raise ValueError(f"--scenario must be one of {', '.join(SCENARIOS)}, got {scenario!r}")
    if context.arguments.stride < 1:
        raise ValueError(f"--stride must be at least 1, got {context.arguments.stride}")
    scenarios = wanted or ([PUBLISHED] if context.quick else [PUBLISHED, *SCENARIOS])
    scenarios = list(dict.fromkeys(scenarios))  # the published one first
    tables, entropies, crossings, found, curves = [], {}, {}, [], {}
    for scenario in context.progress(scenarios, "scenarios"):
        trace = simulate(scenario)
        crossings[scenario] = trace.attrs["crossings"]
        if context.quick:
            trace = trace.isel(epoch=slice(None, None, 5), step=slice(None, None, 8))
        tables.append(_scenario(context, scenario, trace))
        entropies[scenario] = _whole(context, scenario, trace, "mmphate")["intra_step_entropy"]
        curves[scenario] = course(trace)
        found.append(phase_table(scenario, curves[scenario], crossings[scenario]))
        context.say(f"{scenario}: done")
    preservation = pd.concat(tables, ignore_index=True)
    context.table("preservation", preservation)
    phases = pd.concat(found, ignore_index=True)
    context.table("phases", phases)
    for curve, rows in phases.groupby("curve"):
        context.number(
            f"turning points found within 2 epochs, {curve}", f"{(rows.error.abs() <= 2).sum()} of {len(rows)}"
        )
        context.number(f"turning points expected by chance, {curve}", float(rows["by chance"].sum()))
    height = 90 + 170 * ((len(scenarios) + 1) // 2)
    context.figure("entropies", _entropy_figure(entropies, crossings), width=1000, height=height)
    context.figure("phases", _phase_figure(curves, crossings), width=1000, height=height)
    context.figure("preservation", _preservation_figure(preservation), width=1000, height=620)
    flagship = preservation[(preservation.scenario == PUBLISHED) & (preservation.nodes == "all")]
    for row in flagship.to_dict("records"):
        for k in KS:
            if f"inter k={k}" in row:
                context.number(f"{PUBLISHED}, {row['method']}, inter k={k}", float(row[f"inter k={k}"]))
    if context.quick:
        context.note("quick: one scenario, every 5th epoch and 8th step, without UMAP; the numbers mean nothing")


def course(trace: xr.DataArray) -> dict[tuple[str, str], xr.DataArray]:
    """Curves over epochs of each group of units, by group and name, from the activations alone."""
    from hiddenscope.analyses.phases import activation_curves

    found: dict[tuple[str, str], xr.DataArray] = {}
    for group in ("A", "B"):
        part = trace.isel(unit=(trace["group"].values == group).nonzero()[0]).reset_coords(drop=True)
        found |= {(group, name): curve for name, curve in activation_curves(part).items()}
    return found


def phase_table(
    scenario: str, curves: dict[tuple[str, str], xr.DataArray], crossings: tuple[float, float]
) -> pd.DataFrame:
    """Where each curve of each group is said to turn, against where its system turns.

    Args:
        scenario: its name.
        curves: of `course`.
        crossings: epoch at which mu crosses 0, of group A and of group B.

    Returns:
        A row per group and curve. ``error`` is the distance from the truth to the nearest claimed change, in epochs;
        ``by chance`` the share of all epochs that are within 2 of some claimed change.
    """
    import numpy as np
    import pandas as pd

    from hiddenscope.analyses.phases import find_phases
    from hiddenscope.experiments.material import phase_text

    rows = []
    for (group, name), curve in curves.items():
        found = find_phases(curve)
        truth = crossings["AB".index(group)]
        changes = np.array(found.changes)
        error = float(changes[np.abs(changes - truth).argmin()] - truth) if len(changes) else float("nan")
        epochs = curve["epoch"].values
        near = (np.abs(epochs[:, None] - changes[None]) <= 2).any(axis=1) if len(changes) else np.zeros(1)
        rows.append(
            {
                "scenario": scenario,
                "group": group,
                "curve": name,
                "truth": truth,
                "error": error,
                "changes": len(changes),
                "by chance": float(near.mean()),
                "p": found.p_value,
                "phases": phase_text(found),
            }
        )
    return pd.DataFrame(rows)


def _scenario(context: Context, scenario: str, trace: xr.DataArray) -> pd.DataFrame:
    """Pictures of one scenario by every method, their grid, and how much of the neighborhoods each keeps."""
    import pandas as pd

    from hiddenscope.dashboard.figures.embedding import embedding as cloud
    from hiddenscope.dashboard.figures.grid import embedding_grid
    from hiddenscope.experiments.measuring import TITLES, fidelity_row

    rows = []
    for method in ("mmphate", "pca", "raw-pca"):
        made = _whole(context, scenario, trace, method)
        title = "PCA of raw activations" if method == "raw-pca" else TITLES[method]
        rows.append({"scenario": scenario, "nodes": "all", "method": title, **fidelity_row(made)})
    stride = 2 if context.quick else context.arguments.stride
    thin = trace.isel(step=slice(None, None, stride))
    pictures = {}
    for method in THINNED:
        if context.quick and method == "umap":
            continue
        made = _thinned(context, scenario, thin, method, stride)
        pictures[TITLES[method]] = made["embedding"]
        rows.append(
            {"scenario": scenario, "nodes": f"every {stride}th step", "method": TITLES[method], **fidelity_row(made)}
        )
    group = xr.DataArray((thin["group"].values == "B").astype(int), dims="unit", coords={"unit": thin["unit"].values})
    columns = {title: pictures[title] for title in ("MM-PHATE", "PCA", "t-SNE")}
    colors: dict[str, str | xr.DataArray] = {"epoch": "epoch", "step": "step", "unit": "unit", "group": group}
    grid = embedding_grid(columns, colors, class_names={"group": ("A", "B")})
    context.figure(f"grid-{scenario}", grid, width=960, height=1160, title=scenario)
    whole = _whole(context, scenario, trace, "mmphate")["embedding"]
    context.figure(f"mmphate-{scenario}", cloud(whole), width=900, height=700, title=f"{scenario}: MM-PHATE")
    return pd.DataFrame(rows)


def _whole(context: Context, scenario: str, trace: xr.DataArray, method: str) -> xr.Dataset:
    """MM-PHATE or PCA of all nodes."""
    from hiddenscope.experiments.measuring import picture

    raw = method == "raw-pca"
    parameters = {"scenario": scenario, "method": method, "sizes": [*trace.shape], "ks": [*KS]}
    return context.cached(
        f"{scenario}-{method}",
        parameters,
        lambda: picture(
            trace,
            "pca" if raw else _method(method),
            seed=context.seed,
            ks=KS,
            intra_k=INTRA_K,
            n_queries=None,
            normalized=not raw,
        ),
    )


def _thinned(context: Context, scenario: str, trace: xr.DataArray, method: Method, stride: int) -> xr.Dataset:
    """Any method, on every so many steps."""
    from hiddenscope.experiments.measuring import picture

    options = {"tsne": {"theta": 0.8, **({"n_iter": 50} if context.quick else {})}}.get(method, {})
    parameters = {
        "scenario": scenario,
        "method": method,
        "stride": stride,
        "sizes": [*trace.shape],
        "ks": [*KS],
        "options": options,
    }
    return context.cached(
        f"{scenario}-thin-{method}",
        parameters,
        lambda: picture(trace, method, seed=context.seed, ks=KS, intra_k=INTRA_K, n_queries=None, options=options),
    )


def _method(name: str) -> Method:
    from typing import get_args

    from hiddenscope.embeddings.baselines import Method

    assert name in get_args(Method), name
    return cast("Method", name)


def _phase_figure(
    curves: dict[str, dict[tuple[str, str], xr.DataArray]], crossings: dict[str, tuple[float, float]]
) -> go.Figure:
    """Entropy of the activations of both groups, with the changes that are claimed as dots, and the truth as dashes."""
    from plotly.subplots import make_subplots

    from hiddenscope.analyses.phases import find_phases
    from hiddenscope.dashboard.figures.template import LIGHT, template

    figure = make_subplots(
        rows=(len(curves) + 1) // 2,
        cols=min(2, len(curves)),
        subplot_titles=list(curves),
        horizontal_spacing=0.07,
        vertical_spacing=0.09 if len(curves) > 2 else 0.2,
    )
    for number, (scenario, found) in enumerate(curves.items()):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        for group, color in zip("AB", LIGHT.classes[:2], strict=True):
            curve = found[group, "intra-step entropy (activations)"]
            shown = {"legendgroup": group, "showlegend": number == 0}
            line = {"color": color, "width": 2}
            epochs = curve["epoch"].values
            figure.add_scatter(
                x=epochs, y=curve.values, mode="lines", line=line, name=f"group {group}", **shown, **place
            )
            changes = find_phases(curve).changes
            heights = curve.sel(epoch=changes).values
            dots = {"color": color, "size": 8, "line": {"color": "white", "width": 1}}
            figure.add_scatter(x=changes, y=heights, mode="markers", marker=dots, showlegend=False, **place)
        for crossing in sorted(set(crossings[scenario])):
            figure.add_vline(x=crossing, line={"color": LIGHT.classes[3], "width": 1.5, "dash": "dash"}, **place)
    figure.update_layout(
        template=template(dark=False),
        legend={"orientation": "h", "y": 1.05, "yanchor": "bottom"},
        margin={"l": 50, "r": 16, "t": 60, "b": 40},
    )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="nats")
    return figure


def _entropy_figure(entropies: dict[str, xr.DataArray], crossings: dict[str, tuple[float, float]]) -> go.Figure:
    """Mean intra-step entropy of every scenario over epochs, with the epochs where mu crosses 0."""
    from plotly.subplots import make_subplots

    from hiddenscope.dashboard.figures.template import LIGHT, template

    figure = make_subplots(
        rows=(len(entropies) + 1) // 2,
        cols=min(2, len(entropies)),
        subplot_titles=list(entropies),
        horizontal_spacing=0.07,
        vertical_spacing=0.09 if len(entropies) > 2 else 0.2,
    )
    for number, (scenario, entropy) in enumerate(entropies.items()):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        mean = entropy.mean("step")
        line = {"color": LIGHT.accent, "width": 2}
        figure.add_scatter(x=mean["epoch"].values, y=mean.values, mode="lines", line=line, name=scenario, **place)
        groups: dict[float, list[str]] = {}
        for group, crossing in zip("AB", crossings[scenario], strict=True):
            groups.setdefault(crossing, []).append(group)
        for crossing, names in groups.items():
            dash = {"color": LIGHT.classes[3], "width": 1.5, "dash": "dash"}
            figure.add_vline(x=crossing, line=dash, annotation_text=" and ".join(names), **place)
    figure.update_layout(template=template(dark=False), showlegend=False, margin={"l": 50, "r": 16, "t": 40, "b": 40})
    figure.update_annotations(font_size=12)
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text="nats")
    return figure


def _preservation_figure(table: pd.DataFrame) -> go.Figure:
    """Neighbors kept across steps and epochs by every method, on the nodes that all methods were given."""
    from plotly.subplots import make_subplots

    from hiddenscope.dashboard.figures.template import LIGHT, template

    same = table[table["nodes"] != "all"]
    columns = [name for name in table.columns if name.startswith("inter") and not name.endswith("chance")]
    figure = make_subplots(rows=len(columns), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, column in enumerate(columns, start=1):
        for number, (method, rows) in enumerate(same.groupby("method", sort=False)):
            figure.add_bar(
                x=rows["scenario"],
                y=rows[column],
                name=str(method),
                marker_color=LIGHT.classes[number],
                showlegend=row == 1,
                row=row,
                col=1,
            )
        figure.update_yaxes(title_text=f"share kept, {column}", rangemode="tozero", row=row, col=1)
    figure.update_layout(
        template=template(dark=False),
        barmode="group",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"l": 60, "r": 110, "t": 40, "b": 110},
    )
    figure.update_xaxes(tickangle=20)
    return figure


EXPERIMENT = Experiment(
    "bifurcations", "eight synthetic traces with known turning points, drawn by four methods", _run, _add_arguments
)
