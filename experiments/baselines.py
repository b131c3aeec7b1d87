"""``hiddenscope experiment baselines``: one trace, drawn by every method there is, with what each keeps and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiddenscope.experiments.experiment import Context, Experiment

if TYPE_CHECKING:
    import xarray as xr

    from hiddenscope.embeddings.baselines import Method

METHODS: tuple[Method, ...] = ("mmphate", "mphate", "phate", "pca", "isomap", "lle", "tsne", "umap")
QUICK: tuple[Method, ...] = ("mmphate", "mphate", "pca", "tsne")


def _run(context: Context) -> None:
    import pandas as pd

    from hiddenscope.dashboard.figures.grid import embedding_grid
    from hiddenscope.experiments.classifiers import Recipe
    from hiddenscope.experiments.material import kept_picture, recorded, small_watch, states
    from hiddenscope.experiments.measuring import TITLES, fidelity_row
    from hiddenscope.experiments.nulls import order_correlation

    recipe = Recipe(units=8, epochs=7, per_class=2) if context.quick else Recipe()
    run = recorded(context, "lstm", small_watch(quick=context.quick), recipe)
    trace = states(run, epochs=run.epochs if context.quick else run.epochs[::2])
    context.number("nodes", int(trace.sizes["epoch"] * trace.sizes["step"] * trace.sizes["unit"]))
    pictures, rows = {}, []
    for method in context.progress(QUICK if context.quick else METHODS, "methods"):
        options = {"tsne": {"n_iter": 50}}.get(method) if context.quick else None
        made = kept_picture(context, "lstm", trace, method, options=options)
        pictures[TITLES[method]] = made["embedding"]
        rows.append(
            {
                "method": TITLES[method],
                **fidelity_row(made),
                "order of epochs": order_correlation(made["embedding"], "epoch"),
                "order of steps": order_correlation(made["embedding"], "step"),
                "note": made.attrs["note"],
            }
        )
        context.say(f"{TITLES[method]}: {made.attrs['cpu_seconds']:.1f} CPU seconds")
    context.table("methods", pd.DataFrame(rows))
    colors: dict[str, str | xr.DataArray] = {"epoch": "epoch", "step": "step"}
    context.figure("methods", embedding_grid(pictures, colors, limit=6_000), width=1600, height=470)
    if context.quick:
        context.note(f"quick: {len(QUICK)} of {len(METHODS)} methods on a small network; the numbers mean nothing")


EXPERIMENT = Experiment("baselines", "one trace drawn by every method, with what each keeps and costs", _run)
"""The experiment, as `hiddenscope.experiments.experiment.EXPERIMENTS` lists it."""
