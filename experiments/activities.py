"""``hiddenscope experiment har``: human-activity recognition with an LSTM, with the full set of the paper's figures.

The HAR experiment of MM-PHATE (Xie et al. 2024) on UCI HAR for whoever has its folder; for everybody, on watch data,
which resemble it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    from hiddenscope.experiments.classifiers import Recipe

REPORTED_ACCURACY = 0.931
"""Held-out accuracy that the paper reports for UCI HAR."""


def paper_recipe() -> Recipe:
    """The paper's settings; it does not tell of any limit to gradients."""
    from hiddenscope.experiments.classifiers import Recipe

    return Recipe(
        cell="lstm",
        units=30,
        readout="every step",
        learning_rate=2e-5,
        batch_size=32,
        epochs=1_000,
        per_class=1,
        largest_gradient=None,
    )


def watch_recipe(*, quick: bool) -> Recipe:
    """Ours for the watch data, which are learned in two minutes rather than a day."""
    if quick:
        return replace(paper_recipe(), units=8, learning_rate=1e-2, epochs=7, per_class=2)
    return replace(paper_recipe(), learning_rate=2e-3, epochs=60, per_class=6, largest_gradient=1.0)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from hiddenscope.experiments.full_figures import add_methods

    parser.add_argument("--uci", metavar="DIR", help="folder of UCI HAR; without it, the watch data are used")
    parser.add_argument("--epochs", type=int, help="epochs to train (default: 1000 for UCI HAR, 60 for the watch data)")
    parser.add_argument("--learning-rate", type=float, help="of Adam (default: 2e-5 for UCI HAR, 2e-3 for the watch)")
    parser.add_argument("--most-epochs-shown", type=int, default=61, help="epochs embedded (default: %(default)s)")
    add_methods(parser)


def _run(context: Context) -> None:
    import pandas as pd

    from hiddenscope.experiments.classifiers import deviations
    from hiddenscope.experiments.datasets.uci_har import uci_har_split
    from hiddenscope.experiments.full_figures import draw_everything
    from hiddenscope.experiments.material import recorded, shown_epochs, small_watch, states

    arguments = context.arguments
    uci = arguments.uci is not None
    recipe = paper_recipe() if uci else watch_recipe(quick=context.quick)
    if uci and context.quick:
        recipe = replace(recipe, units=8, epochs=7)
    recipe = replace(
        recipe,
        epochs=recipe.epochs if arguments.epochs is None else arguments.epochs,
        learning_rate=arguments.learning_rate or recipe.learning_rate,
    )
    if recipe.epochs < 4:
        raise ValueError(f"--epochs must be at least 4, got {recipe.epochs}")
    split = uci_har_split(Path(arguments.uci).expanduser()) if uci else small_watch(quick=context.quick)
    others = [] if uci else _watch_deviations(split.train.inputs.shape, len(split.held_out))
    context.table("deviations", pd.DataFrame(deviations(paper_recipe(), recipe, others)))
    run = recorded(context, "lstm", split, recipe)
    stride = 2 if context.quick else max(1, split.train.inputs.shape[1] // 16)
    trace = states(run, stride=stride, epochs=shown_epochs(run.epochs, arguments.most_epochs_shown))
    context.note(
        f"embedded: {trace.sizes['epoch']} of {len(run.epochs)} epochs, {trace.sizes['step']} of "
        f"{split.train.inputs.shape[1]} steps, {trace.sizes['unit']} units, {trace.sizes['sample']} probe sequences"
    )
    draw_everything(context, run, trace, split, recipe)
    if uci:
        context.number("held-out accuracy in the paper", REPORTED_ACCURACY)


def _watch_deviations(shape: tuple[int, ...], held_out: int) -> list[tuple[str, str, str]]:
    count, steps, features = shape
    return [
        ("data", "UCI HAR: smartphone at the waist, 30 subjects, 6 activities", "watch: 10 subjects, 7 exercises"),
        ("sequences", "7352 to train, 2947 held out", f"{count} to train, {held_out} held out (subjects 2, 5, 8)"),
        ("steps and features", "128 x 9 at 50 Hz", f"{steps} x {features} at 25 Hz"),
    ]


EXPERIMENT = Experiment("har", "human activities: an LSTM with every figure of the paper", _run, _add_arguments)
"""The experiment, as `hiddenscope.experiments.experiment.EXPERIMENTS` lists it."""
