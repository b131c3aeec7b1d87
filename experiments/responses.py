"""``hiddenscope experiment responses``: does what a unit answers to test signals tell what it is worth?

After Hasani et al. (2018, arXiv:1809.03864): recurrent networks of several sizes are trained on sequences, their units
are characterized and ranked, and the ranking is checked by removing units. Ours are the data (digits by rows and by
pixels, exercises seen by a smartwatch, carbon dioxide over Mauna Loa), the score of a ranking (Spearman's correlation
with what each unit alone is worth) and two yardsticks that need no test signal.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from torch import Tensor, nn

SIZES = {"digits by rows": (16, 64, 256), "digits by pixels": (16, 64), "watch": (16, 64), "co2": (16, 64)}
"""Hidden sizes per data set, chosen for a quarter of an hour of one core in all."""
EPOCHS = {"digits by rows": 25, "digits by pixels": 20, "watch": 15, "co2": 15}
METRICS = ("settling_time", "delay_time", "overshoot", "change", "gain", "lag", "distortion")
YARDSTICKS = ("activity", "readout weight")
REFERENCE = 16
"""Period of the sine, in steps, that gain, lag and distortion belong to."""
MOST_TRAIN, MOST_TEST = 1200, 240


@dataclass(frozen=True)
class Task:
    """Sequences and what is to be said of each; classes are whole numbers, values to come are real ones.

    Attributes:
        name: of the data set.
        train: inputs (sequence, step, feature) and targets.
        test: the same, of what was held out.
        classes: how many classes; 0 where a value is forecast.
    """

    name: str
    train: tuple[npt.NDArray[np.float32], npt.NDArray[Any]]
    test: tuple[npt.NDArray[np.float32], npt.NDArray[Any]]
    classes: int

    @property
    def quantity(self) -> str:
        """What the score is: more is better."""
        return "accuracy" if self.classes else "explained variance"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=sorted(SIZES), help="one data set instead of all")
    parser.add_argument("--sizes", type=int, nargs="+", help="hidden sizes, for all data sets (default: by data set)")
    parser.add_argument("--cell", choices=("lstm", "gru", "rnn"), default="lstm", help="default: %(default)s")


def _run(context: Context) -> None:
    import torch

    torch.set_num_threads(1)
    chosen = context.arguments.sizes
    if chosen is not None and min(chosen) < 2:
        raise ValueError(f"--sizes must be 2 or more, got {chosen}")
    names = [context.arguments.data] if context.arguments.data else list(SIZES)
    if context.quick:
        names = names[:1]
    found: dict[tuple[str, int], xr.Dataset] = {}
    for name in names:
        task = _task(name, context)
        if task is None:
            continue
        for units in chosen or ((8,) if context.quick else SIZES[name]):
            result = context.cached(
                f"{name.replace(' ', '-')}-{units}",
                {"cell": context.arguments.cell, "units": units, "epochs": _epochs(context, name)},
                lambda task=task, units=units: _network(task, units, context),  # type: ignore[misc]
            )
            found[name, units] = result
            context.say(
                f"{name}, {units} units: {task.quantity} {result.attrs['score']:.3f}, {result.attrs['seconds']:.0f} s"
            )
    if not found:
        context.note("no data set was there, so nothing was trained")
        return
    _report(context, found)
    if context.quick:
        context.note("quick: one small network, a few sequences; the numbers mean nothing")


def _epochs(context: Context, name: str) -> int:
    return 1 if context.quick else EPOCHS[name]


def _task(name: str, context: Context) -> Task | None:
    """The data set, thinned to what one core can train; None with a note where its package is missing."""
    from hiddenscope.errors import MissingExtraError
    from hiddenscope.experiments.datasets.co2 import co2_file, forecast_split, load_co2
    from hiddenscope.experiments.datasets.digits import digits_split
    from hiddenscope.experiments.datasets.watch import watch_split

    rng = np.random.default_rng(context.seed)
    limits = (60, 30) if context.quick else (MOST_TRAIN, MOST_TEST)
    if name == "co2":
        path = co2_file()
        if path is None:
            context.note("co2 was left out: it needs statsmodels, which carries the series; pip install statsmodels")
            return None
        pairs: list[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]]
        pairs = [(part.inputs, part.targets[:, 0]) for part in forecast_split(load_co2(path))]
        classes = 0
    else:
        try:
            split = watch_split() if name == "watch" else digits_split()
        except MissingExtraError as error:
            context.note(f"{name} was left out: {error}")
            return None
        pairs = [(part.inputs, part.labels) for part in (split.train, split.held_out)]
        classes = len(split.train.label_names)
        if name == "watch":  # 25 Hz do for movements of the arm, and take half the time
            pairs = [(inputs[:, ::2], labels) for inputs, labels in pairs]
        if name == "digits by pixels":
            pairs = [(inputs.reshape(len(inputs), -1, 1), labels) for inputs, labels in pairs]
    thinned = []
    for (inputs, targets), most in zip(pairs, limits, strict=True):
        kept = np.sort(rng.choice(len(inputs), min(most, len(inputs)), replace=False))
        thinned.append((np.ascontiguousarray(inputs[kept]), targets[kept]))
    return Task(name, thinned[0], thinned[1], classes)


def _network(task: Task, units: int, context: Context) -> xr.Dataset:
    """Train one network, characterize its units, and remove them: everything that is reported of it."""
    from hiddenscope.analyses.models import ModelAccess
    from hiddenscope.analyses.removal import agreement, model_score, rank_units, removal_curves, unit_importance
    from hiddenscope.analyses.responses import drive_data, unit_responses

    model = _train(task, units, context)
    access = ModelAccess(model)
    inputs = task.test[0]
    loss, score = _measures(task)
    worth = unit_importance(model_score(access, "recurrent", inputs, lambda answer: -loss(answer)), units)
    answers = unit_responses(model, "recurrent", drive_along=drive_data(task.train[0])).squeeze("state", drop=True)
    by_reading = {
        str(reading): _numbers(answers.sel(reading=reading, drop=True)) for reading in answers["reading"].values
    }
    yardsticks = _yardsticks(access, model, inputs)
    result = xr.Dataset({"importance": ("unit", worth)}, {"unit": np.arange(units)})
    rows = []
    for reading, numbers in by_reading.items():
        rows.append(agreement(numbers, worth).expand_dims(reading=[reading]))
        for metric in METRICS:
            result[f"{metric}, {reading}"] = ("unit", numbers[metric].values)
    yard = agreement(yardsticks, worth).expand_dims(reading=["none"])
    agreed = xr.concat(rows, dim="reading")
    for name, values in agreed.data_vars.items():
        result[str(name)] = (("reading", "metric"), values.transpose("reading", "metric").values)
    for name, values in yard.data_vars.items():
        result[f"yardstick_{name}"] = ("yardstick", values.values[0])
    ranks = rank_units(by_reading["in-network"])
    orders = {metric: ranks["rank"].sel(metric=metric).values for metric in METRICS}
    orders["combined"] = ranks["combined"].values
    orders["true importance"] = rank_units({"importance": np.maximum(worth - worth.min(), 0)})["rank"].values[0]
    curves = removal_curves(
        model_score(access, "recurrent", inputs, score),
        xr.DataArray(np.array(list(orders.values())), dims=("metric", "unit"), coords={"metric": list(orders)}),
        random_orders=3 if context.quick else 20,
        points=5 if context.quick else 11,
        seed=context.seed,
    ).rename(metric="ranking", score="curve")
    result = result.assign_coords(
        reading=list(by_reading), metric=list(METRICS), yardstick=list(YARDSTICKS), **_coordinates(curves)
    )
    for name, values in curves.data_vars.items():
        result[str(name)] = values
    flags = answers["step_flag"].sel(reading="in-network").values
    return result.assign_attrs(
        score=float(curves["curve"].isel(ranking=0, order=0, removed=0)),
        quantity=task.quantity,
        undefined=int(np.sum(flags != "")),
        coupling=float(np.nanmedian(answers["coupling"].values)),
    )


def _coordinates(curves: xr.Dataset) -> Mapping[str, Any]:
    return {name: curves[name].values for name in ("ranking", "order", "removed")}


def _train(task: Task, units: int, context: Context) -> nn.Module:
    import torch
    from torch import nn

    from hiddenscope.experiments.classifiers import Recipe, RecurrentClassifier

    recipe = Recipe(cell=context.arguments.cell, units=units, readout="mean" if task.name == "watch" else "last")
    inputs, targets = torch.from_numpy(task.train[0]), torch.from_numpy(task.train[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        model = RecurrentClassifier(
            recipe, n_steps=inputs.shape[1], n_features=inputs.shape[2], n_classes=task.classes or 1
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3 if units < 200 else 2e-3)
    rng = np.random.default_rng(context.seed)
    for _ in range(_epochs(context, task.name)):
        order = rng.permutation(len(inputs))
        for first in range(0, len(order), recipe.batch_size):
            batch = torch.from_numpy(order[first : first + recipe.batch_size])
            answer = model(inputs[batch])
            lost = (
                nn.functional.cross_entropy(answer, targets[batch])
                if task.classes
                else nn.functional.mse_loss(answer[:, 0], targets[batch])
            )
            optimizer.zero_grad()
            lost.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.eval()


def _measures(task: Task) -> tuple[Any, Any]:
    """The loss (nats, or mean square over the variance), and the score of which more is better."""
    import torch
    from torch import nn

    targets = torch.from_numpy(task.test[1])
    if task.classes:

        def accuracy(answer: Tensor) -> float:
            return float((answer.argmax(dim=1) == targets).float().mean())

        return (lambda answer: float(nn.functional.cross_entropy(answer, targets))), accuracy
    variance = float(targets.var())

    def unexplained(answer: Tensor) -> float:
        return float(nn.functional.mse_loss(answer[:, 0], targets)) / variance

    return unexplained, (lambda answer: 1 - unexplained(answer))


def _numbers(answers: xr.Dataset) -> xr.Dataset:
    at = answers.sel(period=REFERENCE, drop=True)
    return xr.Dataset({name: at[name] for name in METRICS})


def _yardsticks(access: Any, model: Any, inputs: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float64]]:
    """What is known of a unit without any test signal: how strongly it varies over the data, and how it is read out."""
    states = access.states(inputs, "recurrent").numpy().astype(np.float64)  # (step, unit, sample)
    weights = model.readout.weight.detach().numpy().astype(np.float64)
    return {"activity": states.std(axis=(0, 2)), "readout weight": np.linalg.norm(weights, axis=0)}


def _report(context: Context, found: Mapping[tuple[str, int], xr.Dataset]) -> None:
    from hiddenscope.dashboard.figures.removal import capacity, importance_against, removal

    networks, agreed, areas = _tables(found)
    context.table("networks", networks)
    context.table("agreement", agreed)
    context.table("removal", areas)
    context.figure("agreement", _agreement_figure(agreed), width=1000, height=460)
    for (name, units), result in found.items():
        slug = f"{name.replace(' ', '-')}-{units}"
        curves = result[["curve", "random", "area", "area_error"]].rename(ranking="metric_", curve="score")
        curves = curves.drop_vars("metric", errors="ignore").rename(metric_="metric")
        title = f"{name}, {units} units"
        ranked = areas[(areas["data"] == name) & (areas["units"] == units) & areas["area"].notna()]["ranking"]
        curves = curves.sel(metric=ranked.tolist())
        context.figure(
            f"removal-{slug}", removal(curves, quantity=str(result.attrs["quantity"]), title=title), height=620
        )
        numbers = {metric: result[f"{metric}, in-network"].values for metric in METRICS}
        correlation = dict(zip(METRICS, result["correlation"].sel(reading="in-network").values.tolist(), strict=True))
        context.figure(
            f"importance-{slug}",
            importance_against(
                numbers, result["importance"].values, result["unit"].values, correlation, quantity="growth of the loss"
            ),
            height=520,
        )
    for name in dict.fromkeys(name for name, _ in found):
        spreads = {
            metric: {units: one[f"{metric}, in-network"].values for (data, units), one in found.items() if data == name}
            for metric in ("settling_time", "gain", "lag", "overshoot")
        }
        context.figure(f"capacity-{name.replace(' ', '-')}", capacity(spreads, title=name), height=420)
    typical = agreed.groupby(["reading", "metric"])["correlation"].median().reset_index()
    for row in typical.sort_values("correlation", ascending=False).to_dict("records"):
        told = f"median correlation with importance, {row['metric']} ({row['reading']})"
        context.number(told, float(row["correlation"]))


def _tables(found: Mapping[tuple[str, int], xr.Dataset]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    networks, agreed, areas = [], [], []
    for (name, units), result in found.items():
        about: dict[str, Any] = {"data": name, "units": units}
        told = {key: result.attrs[key] for key in ("quantity", "score", "undefined", "coupling")}
        networks.append({**about, **told})
        for reading in result["reading"].values:
            for metric in result["metric"].values:
                at = result[["correlation", "p_value", "units"]].sel(reading=reading, metric=metric)
                agreed.append(
                    {
                        **about,
                        "reading": str(reading),
                        "metric": str(metric),
                        "correlation": float(at["correlation"]),
                        "p_value": float(at["p_value"]),
                        "known": int(at["units"]),
                    }
                )
        for i, metric in enumerate(result["yardstick"].values):
            agreed.append(
                {
                    **about,
                    "reading": "yardstick",
                    "metric": metric,
                    "correlation": float(result["yardstick_correlation"][i]),
                    "p_value": float(result["yardstick_p_value"][i]),
                    "known": int(result["yardstick_units"][i]),
                }
            )
        error = float(result["area_error"])
        for ranking, area in zip(result["ranking"].values, result["area"].values, strict=True):
            values = result.get(f"{ranking}, in-network")
            ranked = values is None or np.isfinite(values.values).mean() > 0.5  # else mostly ties: no ranking at all
            areas.append({**about, "ranking": ranking, "area": float(area) if ranked else np.nan, "random": error})
    return pd.DataFrame(networks), pd.DataFrame(agreed), pd.DataFrame(areas)


def _agreement_figure(agreed: pd.DataFrame) -> go.Figure:
    """Spearman's correlation of every metric (down) with the importance of the units, network by network (across)."""
    import plotly.graph_objects as go

    from hiddenscope.dashboard.figures.responses import NAMES
    from hiddenscope.dashboard.figures.template import LIGHT, colorbar, template

    columns = list(
        dict.fromkeys(f"{data}<br>{units} units" for data, units in zip(agreed["data"], agreed["units"], strict=True))
    )
    rows = list(dict.fromkeys(zip(agreed["reading"], agreed["metric"], strict=True)))
    values = np.full((len(rows), len(columns)), np.nan)
    for row in agreed.itertuples():
        values[rows.index((row.reading, row.metric)), columns.index(f"{row.data}<br>{row.units} units")] = (
            row.correlation
        )
    names = [f"{NAMES.get(metric, metric).split(' (')[0]}, {reading}" for reading, metric in rows]
    figure = go.Figure(layout={"template": template(dark=False)})
    figure.add_trace(
        go.Heatmap(
            x=columns,
            y=names,
            z=values,
            zmin=-1,
            zmax=1,
            colorscale=[(0.0, LIGHT.classes[3]), (0.5, LIGHT.panel), (1.0, LIGHT.classes[0])],
            texttemplate="%{z:.2f}",
            colorbar=colorbar(title="rank correlation", dark=False),
            hovertemplate="%{y}<br>%{x}<br>%{z:.2f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    figure.update_layout(margin={"l": 190, "r": 20, "t": 30, "b": 60})
    return figure


EXPERIMENT = Experiment(
    "responses",
    "do the step and sine responses of units tell what the units are worth?",
    _run,
    _add_arguments,
)
