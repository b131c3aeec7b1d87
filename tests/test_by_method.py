"""Entropies of several embeddings of the same nodes stand side by side, with bands where they were asked for."""

import numpy as np
import pytest
import xarray as xr

from hiddenscope.analyses.by_method import entropies_by_method
from hiddenscope.analyses.entropy import inter_step_entropy, intra_step_entropy
from hiddenscope.embeddings.baselines import embed


@pytest.fixture(scope="module")
def trace():
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(6, 5, 6, 12)), axis=0)
    coords = {"epoch": np.arange(6.0), "label": ("sample", np.arange(12) % 2)}
    return xr.DataArray(values, dims=("epoch", "step", "unit", "sample"), coords=coords)


def test_each_method_has_the_entropies_of_its_own_embedding(trace):
    found = entropies_by_method(trace, methods=["pca", "isomap"], banded=["pca"], n_boot=4)
    assert found.picture.values.tolist() == ["pca", "isomap"]
    for method in ("pca", "isomap"):
        embedding = embed(trace, method=method, random_state=0)
        intra = intra_step_entropy(embedding).mean("step")
        inter = inter_step_entropy(embedding).mean("unit")
        np.testing.assert_allclose(found.intra.sel(picture=method), intra)
        np.testing.assert_allclose(found.inter.sel(picture=method), inter)


def test_only_banded_methods_have_a_band_and_it_is_one(trace):
    found = entropies_by_method(trace, methods=["pca", "isomap"], banded=["pca"], n_boot=6)
    for name in ("intra", "inter"):
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        assert (high.sel(picture="pca") > low.sel(picture="pca")).all()
        assert low.sel(picture="isomap").isnull().all()
    again = entropies_by_method(trace, methods=["pca"], banded=["pca"], n_boot=6)
    xr.testing.assert_allclose(again.intra_low.sel(picture="pca"), found.intra_low.sel(picture="pca"))


def test_the_estimators_are_those_that_were_asked_for(trace):
    found = entropies_by_method(trace, methods=["pca"], banded=[], intra_estimator="gaussian")
    embedding = embed(trace, method="pca", random_state=0)
    np.testing.assert_allclose(
        found.intra.sel(picture="pca"), intra_step_entropy(embedding, estimator="gaussian").mean("step")
    )
    assert found.attrs["intra_estimator"] == "gaussian"
