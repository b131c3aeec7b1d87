"""One method's picture of a trace, with its entropies, its time and how far it can be trusted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from hiddenscope.embeddings.baselines import Method

TITLES: Mapping[str, str] = {
    "mmphate": "MM-PHATE",
    "pca": "PCA",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "isomap": "Isomap",
    "lle": "LLE",
    "phate": "PHATE",
    "mphate": "M-PHATE",
}
"""How each method is written."""


def picture(
    trace: xr.DataArray,
    method: Method,
    *,
    seed: int,
    ks: Sequence[int] = (10,),
    intra_k: int | None = None,
    n_queries: int | None = 2_000,
    normalized: bool = True,
    options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Embed a trace in three dimensions, and measure the picture.

    Args:
        trace: dims (epoch, step, unit, sample).
        method: as `hiddenscope.embed` takes it.
        seed: of the embedding.
        ks: neighbors counted across steps and epochs; lowered to half the candidates where there are too few.
        intra_k: neighbors counted among the units of a step; by default half the others, at most 10.
        n_queries: nodes that are asked for their neighbors; None asks all.
        normalized: False embeds the activations as they are.
        options: of the method.

    Returns:
        ``embedding`` (epoch, step, unit, component), ``intra_step_entropy`` (epoch, step), ``inter_step_entropy``
        (epoch, unit), ``inter`` and ``inter_chance`` (k), and ``intra``, ``intra_chance``, ``intra_k``,
        ``trustworthiness`` and ``trustworthiness_chance`` as single values. Attributes: ``method``, ``note`` with
        what was said in warnings, ``cpu_seconds`` of the embedding alone.
    """
    from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
    from hiddenscope.embeddings.baselines import embed
    from hiddenscope.embeddings.fidelity import neighborhood_preservation, trustworthiness

    bare = trace.reset_coords(drop=True)
    began = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        embedding = embed(bare, method=method, random_state=seed, normalized=normalized, options=options or {})
    seconds = time.process_time() - began
    assert isinstance(embedding, xr.DataArray)
    said = sorted({str(one.message) for one in caught if one.category is UserWarning})
    notes = [str(embedding.attrs.get("note", "")), *said]
    slices, units = trace.sizes["epoch"] * trace.sizes["step"], trace.sizes["unit"]
    within = min(10, (units - 1) // 2) if intra_k is None else intra_k
    chosen = sorted({min(k, (slices - 1) // 2) for k in ks})
    kept = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="k = .* neighbors of .* units")  # within is given where it can be
        for k in chosen:
            measured = neighborhood_preservation(
                bare, embedding, k=k, intra_k=within or None, n_queries=n_queries, random_state=0
            )
            kept.append(measured)
    trusted = trustworthiness(bare, embedding, k=10 if slices * units > 40 else 1)
    return xr.Dataset(
        {
            "embedding": embedding.astype(np.float32),
            "intra_step_entropy": _bare(intra_step_entropy(embedding)),
            "inter_step_entropy": _bare(inter_step_entropy(embedding)),
            "inter": ("k", [one.inter for one in kept]),
            "inter_chance": ("k", [one.inter_chance for one in kept]),
            "intra": ((), kept[0].intra),
            "intra_chance": ((), kept[0].intra_chance),
            "intra_k": ((), kept[0].intra_k),
            "trustworthiness": ((), trusted.value),
            "trustworthiness_chance": ((), trusted.chance),
        },
        coords={"k": chosen},
        attrs={"method": method, "note": "; ".join(filter(None, notes)), "cpu_seconds": seconds},
    )


def fidelity_row(made: xr.Dataset) -> dict[str, float | int]:
    """The measures of `picture` as one row of a table."""
    row: dict[str, float | int] = {}
    for k in made["k"].values:
        row[f"inter k={k}"] = float(made["inter"].sel(k=k))
        row[f"inter k={k} by chance"] = float(made["inter_chance"].sel(k=k))
    within = int(made["intra_k"])
    row[f"intra k={within}"] = float(made["intra"])
    row[f"intra k={within} by chance"] = float(made["intra_chance"])
    row["trustworthiness"] = float(made["trustworthiness"])
    row["cpu seconds"] = float(made.attrs["cpu_seconds"])
    return row


def _bare(values: object) -> xr.DataArray:
    assert isinstance(values, xr.DataArray)
    return values.reset_coords(drop=True)
