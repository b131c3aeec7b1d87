"""Entropies of several embeddings of the same nodes, each with a band over probe samples and its relation to metrics.

MM-PHATE (Xie et al. 2024) compares the entropies of its own embedding with those of PCA, t-SNE and Isomap, without
bands or significance. Embeddings differ in scale, so levels cannot be compared between methods, only courses.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import numpy as np
import xarray as xr

from hiddenscope.analyses.association import associate_with_metrics
from hiddenscope.analyses.bootstrap import bootstrap_over_samples
from hiddenscope.analyses.curves import mean_over
from hiddenscope.analyses.entropy import Estimator, inter_step_entropy, intra_step_entropy
from hiddenscope.analyses.studies import Study
from hiddenscope.analyses.thinning import thinned_trace
from hiddenscope.embeddings.baselines import Method, embed
from hiddenscope.errors import MissingExtraError
from hiddenscope.run import Run

METHODS: tuple[Method, ...] = ("mmphate", "pca", "isomap")
"""Those that take seconds and need no extra; t-SNE and UMAP can be asked for."""
BANDED: tuple[Method, ...] = ("mmphate", "pca")
"""Those that are drawn anew for every draw of the bootstrap."""
EPOCHS, STEPS, N_BOOT = 32, 8, 10


def entropies_by_method(
    trace: xr.DataArray,
    *,
    methods: Sequence[Method] = METHODS,
    banded: Sequence[Method] = BANDED,
    n_boot: int = N_BOOT,
    intra_estimator: Estimator = "knn",
    inter_estimator: Estimator = "kde",
    seed: int = 0,
) -> xr.Dataset:
    """Intra-step and inter-step entropy of one trace in several embeddings, in nats.

    Args:
        trace: dims (epoch, step, unit, sample); every method embeds all of its nodes.
        methods: as `embed` knows them; those whose extra is not installed are left out, with a warning.
        banded: those of them whose embedding is made anew for ``n_boot`` draws of the samples.
        n_boot: draws behind each band.
        intra_estimator: see `intra_step_entropy`.
        inter_estimator: see `inter_step_entropy`.
        seed: of the embeddings and the draws.

    Returns:
        ``intra`` and ``inter`` (picture, epoch), means over steps and over units; ``intra_low``, ``intra_high``,
        ``inter_low``, ``inter_high``: where 90 % of the draws lie, NaN for methods without a band.
    """

    def both(one: xr.DataArray, method: Method) -> xr.DataArray:
        embedding = embed(one, method=method, random_state=seed)
        assert isinstance(embedding, xr.DataArray)
        named = embedding.reset_coords(drop=True)
        intra = intra_step_entropy(named, estimator=intra_estimator)
        inter = inter_step_entropy(named, estimator=inter_estimator)
        assert isinstance(intra, xr.DataArray)
        assert isinstance(inter, xr.DataArray)
        curves = [mean_over(intra, "step"), mean_over(inter, "unit")]
        return xr.concat(curves, dim="entropy").assign_coords(entropy=["intra", "inter"])

    found: dict[Method, xr.Dataset] = {}
    for method in methods:
        try:
            if method in banded:
                statistic = functools.partial(both, method=method)
                found[method] = bootstrap_over_samples(trace, statistic, n_boot=n_boot, seed=seed)
            else:
                value = both(trace, method)
                found[method] = xr.Dataset({"value": value}).assign(low=value * np.nan, high=value * np.nan)
        except MissingExtraError as error:
            warnings.warn(str(error), stacklevel=2)
    names = list(found)
    together = xr.concat([found[name][["value", "low", "high"]] for name in names], dim="picture")
    together = together.assign_coords(picture=np.array(names, dtype=np.str_))
    variables = {
        entropy + suffix: together[part].sel(entropy=entropy, drop=True)
        for entropy in ("intra", "inter")
        for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
    }
    return xr.Dataset(variables).assign_attrs(
        unit="nats", n_boot=n_boot, seed=seed, intra_estimator=intra_estimator, inter_estimator=inter_estimator
    )


def _study(run: Run, layer: str) -> xr.Dataset | None:
    """Entropies by method, thinned to a few thousand nodes, and how each goes with each metric."""
    if len(run.epochs) < 2:
        return None
    trace, note = thinned_trace(run, layer, epochs=EPOCHS, steps=STEPS)
    found = entropies_by_method(trace)
    metrics = run.metrics()
    if not metrics.empty and trace.sizes["epoch"] >= 8:
        tables = [
            xr.concat(
                [associate_with_metrics(found[name].sel(picture=method), metrics).to_xarray() for name in _ENTROPIES],
                dim="entropy",
            )
            for method in found["picture"].values
        ]
        joined = xr.concat(tables, dim="picture").assign_coords(
            entropy=list(_ENTROPIES), picture=found["picture"].values
        )
        found = found.merge(joined)
    return found.assign_attrs(note=note)


_ENTROPIES = ("intra", "inter")
BY_METHOD = Study("entropies_by_method", "entropies of other embeddings", _study, {"seed": 0})
