"""``hiddenscope experiment stopping``: does stopping on separability choose as good an epoch as validation loss?

Su & Shlizerman (2019, arXiv:1905.12176) propose that the separability of clusters in hidden-state space tells how far
a training is. Here the demo's network is trained several times on some subjects, watched on others, and judged on a
third group of subjects that took no part in the choice of an epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.separability import MEASURES, measures, training_phase
from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from hiddenscope.experiments.datasets.sequences import Sequences

Curve = npt.NDArray[np.float64]

TEST_SUBJECTS = (2, 5, 8)
VALIDATION_SUBJECTS = (1, 7)
PATIENCE = 5

RULES: Mapping[str, Callable[[xr.Dataset], int]] = {
    "last epoch": lambda run: run.sizes["epoch"] - 1,
    "lowest validation loss": lambda run: int(np.nanargmin(run["val_loss"].values)),
    "highest separability": lambda run: int(np.nanargmax(run["silhouette"].values)),
    "highest separability, training subjects": lambda run: int(np.nanargmax(run["train_silhouette"].values)),
    "highest Fisher ratio": lambda run: int(np.nanargmax(run["fisher_ratio"].values)),
    "highest nearest-centroid accuracy": lambda run: int(np.nanargmax(run["nearest_centroid"].values)),
    "highest ARI": lambda run: int(np.nanargmax(run["ari"].values)),
    "first plateau of separability": lambda run: first_plateau(run["silhouette"].values),
    "validation loss, patience 5": lambda run: early_stop(-run["val_loss"].values, patience=PATIENCE),
    "separability, patience 5": lambda run: early_stop(run["silhouette"].values, patience=PATIENCE),
    "best on test (out of reach)": lambda run: int(np.nanargmax(run["test_accuracy"].values)),
}
"""Each chooses an epoch from what is known of a training; only the last looks at the test subjects."""


def early_stop(values: npt.ArrayLike, *, patience: int) -> int:
    """The best epoch when training stops after ``patience`` epochs without a new highest value.

    >>> early_stop([1, 3, 2, 2, 9], patience=2), early_stop([1, 3, 2, 2, 9], patience=3)
    (1, 4)
    """
    best, best_at = -np.inf, 0
    for epoch, value in enumerate(np.asarray(values, dtype=np.float64)):
        if value > best:
            best, best_at = float(value), epoch
        elif epoch - best_at >= patience:
            break
    return best_at


def first_plateau(values: npt.ArrayLike) -> int:
    """The first epoch that `training_phase` calls a plateau; the last one if there is none.

    >>> first_plateau([0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5]), first_plateau([1, 2])
    (10, 1)
    """
    found = np.flatnonzero(training_phase(values) == 2)
    return int(found[0]) if found.size else len(np.asarray(values)) - 1


def watched_training(
    train: Sequences, validation: Sequences, test: Sequences, *, seed: int, epochs: int, units: int, per_class: int
) -> xr.Dataset:
    """Train the demo's network once, and measure it after every epoch.

    Returns:
        Over ``epoch`` (0 is after the first pass): ``train_loss``, ``val_loss``, ``test_loss`` in nats,
        ``val_accuracy``, ``test_accuracy``, the measures of separability of a probe of the validation subjects, and
        ``train_silhouette`` of one of the training subjects.
    """
    import torch

    from hiddenscope.experiments.har import SequenceClassifier, probe, tensors

    torch.manual_seed(seed)
    model = SequenceClassifier(train.inputs.shape[2], len(train.label_names), hidden_size=units)
    optimizer = torch.optim.Adam(model.parameters(), lr=model.learning_rate)
    shuffle = torch.Generator().manual_seed(seed)
    batches = torch.utils.data.DataLoader(tensors(train), 64, shuffle=True, generator=shuffle)
    probes = {"": probe(validation, per_class=per_class), "train_": probe(train, per_class=per_class)}
    rows = []
    for _ in range(epochs):
        total = 0.0
        for sequences, labels in batches:
            loss = torch.nn.functional.cross_entropy(model(sequences), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(labels)
        row = {"train_loss": total / len(train)}
        with torch.no_grad():
            for name, part in (("val", validation), ("test", test)):
                logits, labels = model(torch.from_numpy(part.inputs)), torch.from_numpy(part.labels)
                row[f"{name}_loss"] = float(torch.nn.functional.cross_entropy(logits, labels))
                row[f"{name}_accuracy"] = float((logits.argmax(dim=1) == labels).float().mean())
            for prefix, (sequences, labels) in probes.items():
                states = model.lstm(sequences)[0].mean(dim=1, dtype=torch.float64)
                row |= {prefix + name: value for name, value in measures(states.numpy(), labels.numpy()).items()}
        rows.append(row)
    return xr.Dataset({name: ("epoch", [row[name] for row in rows]) for name in rows[0]})


def compare(runs: Mapping[int, xr.Dataset]) -> pd.DataFrame:
    """What each rule chose in each training: one row for each rule and seed."""
    import pandas as pd

    rows = []
    for seed, run in runs.items():
        for rule, choose in RULES.items():
            epoch = choose(run)
            rows.append(
                {
                    "seed": seed,
                    "rule": rule,
                    "epoch": epoch,
                    "test_accuracy": float(run["test_accuracy"][epoch]),
                    "test_loss": float(run["test_loss"][epoch]),
                }
            )
    return pd.DataFrame(rows)


def summarize(chosen: pd.DataFrame, *, reference: str = "lowest validation loss") -> pd.DataFrame:
    """Mean over trainings for each rule, and how it does against the reference, training by training.

    ``better`` and ``worse`` count the trainings in which the rule's epoch has the higher or lower test accuracy, and
    ``p`` is a two-sided Wilcoxon signed-rank test of the differences (1 where there are none).
    """
    import pandas as pd
    from scipy.stats import wilcoxon

    base = chosen[chosen.rule == reference].set_index("seed").test_accuracy
    rows = []
    for rule, group in chosen.groupby("rule", sort=False):
        difference = group.set_index("seed").test_accuracy - base
        moved = difference[difference != 0]
        rows.append(
            {
                "rule": rule,
                "epoch": group.epoch.median(),
                "test_accuracy": group.test_accuracy.mean(),
                "deviation": group.test_accuracy.std(ddof=1) if len(group) > 1 else 0.0,
                "test_loss": group.test_loss.mean(),
                "difference": difference.mean(),
                "better": int((difference > 0).sum()),
                "worse": int((difference < 0).sum()),
                "p": float(wilcoxon(moved).pvalue) if len(moved) > 1 else 1.0,
            }
        )
    return pd.DataFrame(rows)


def correlations(runs: Mapping[int, xr.Dataset]) -> pd.DataFrame:
    """Spearman correlation over epochs of each measure with the test accuracy: mean and range over trainings."""
    import pandas as pd

    rows = []
    for name in ("val_loss", "val_accuracy", *MEASURES, "train_silhouette"):
        found = [rank_correlation(run[name].values, run["test_accuracy"].values) for run in runs.values()]
        rows.append({"measure": name, "correlation": np.mean(found), "lowest": min(found), "highest": max(found)})
    return pd.DataFrame(rows)


def rank_correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Spearman's correlation; NaN where one of the two never changes.

    >>> rank_correlation([1, 2, 3], [10, 20, 15])
    0.5
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (one, other)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def curves(runs: Mapping[int, xr.Dataset], chosen: pd.DataFrame) -> go.Figure:
    """Separability, validation loss and test accuracy of every training; dots where two of the rules choose."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from hiddenscope.dashboard.figures.template import template, theme

    look = theme(dark=False)
    figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.07)
    panels = (
        ("silhouette", "separability"),
        ("val_loss", "validation loss (nats)"),
        ("test_accuracy", "test accuracy"),
    )
    marks = (("highest separability", look.classes[3]), ("lowest validation loss", look.classes[0]))
    for column, (name, title) in enumerate(panels, start=1):
        for seed, run in runs.items():
            line = go.Scatter(y=run[name].values, mode="lines", line={"color": look.faint, "width": 1.3})
            figure.add_trace(line.update(name=f"seed {seed}", showlegend=False), row=1, col=column)
        for rule, color in marks:
            picked = chosen[chosen.rule == rule]
            height = [float(runs[seed][name][epoch]) for seed, epoch in zip(picked.seed, picked.epoch, strict=True)]
            dots = go.Scatter(x=picked.epoch, y=height, mode="markers", marker={"color": color, "size": 9}, name=rule)
            figure.add_trace(dots.update(showlegend=column == 1), row=1, col=column)
        figure.update_xaxes(title_text="epoch", row=1, col=column)
        figure.update_yaxes(title_text=title, title_standoff=2, row=1, col=column)
    figure.update_layout(template=template(dark=False), legend={"orientation": "h", "y": 1.12, "x": 0})
    return figure


def _run(context: Context) -> None:
    import torch

    from hiddenscope.experiments.datasets.sequences import Split, hold_out_groups, standardize
    from hiddenscope.experiments.datasets.watch import load_watch

    torch.set_num_threads(1)
    trainings, epochs = context.arguments.trainings, context.arguments.epochs
    units, per_class = 30, 16
    if context.quick:
        trainings, epochs, units, per_class = 2, 3, 4, 3
    data = load_watch()
    if context.quick:
        data = data.subset(np.arange(len(data)) % 20 == 0)
    known = hold_out_groups(data, TEST_SUBJECTS)
    inner = hold_out_groups(known.train, VALIDATION_SUBJECTS)
    scaled = standardize(inner)
    test = standardize(Split(inner.train, known.held_out)).held_out
    runs = {}
    for seed in context.progress(range(context.seed, context.seed + trainings), "trainings"):
        parameters = {"training": seed, "epochs": epochs, "units": units, "per_class": per_class, "n": len(data)}
        runs[seed] = context.cached(
            "training",
            parameters,
            lambda seed=seed: watched_training(  # type: ignore[misc]
                scaled.train, scaled.held_out, test, seed=seed, epochs=epochs, units=units, per_class=per_class
            ),
        )
    chosen = compare(runs)
    summary = summarize(chosen)
    context.table("chosen", chosen)
    context.table("rules", summary)
    context.table("correlations", correlations(runs))
    context.say(summary.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    context.say(correlations(runs).to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    by_rule = summary.set_index("rule")
    context.number("test accuracy, lowest validation loss", by_rule.test_accuracy["lowest validation loss"])
    context.number("test accuracy, highest separability", by_rule.test_accuracy["highest separability"])
    context.number("p, highest separability", by_rule.p["highest separability"])
    context.figure("stopping", curves(runs, chosen), width=1000, height=360, title="stopping on separability")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trainings", type=int, default=8, help="trainings, with seeds of their own (default: 8)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of each (default: 60)")


EXPERIMENT = Experiment(
    "stopping", "Does stopping on separability choose as good an epoch as validation loss?", _run, _add_arguments
)
