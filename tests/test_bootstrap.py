"""The bootstrap over samples: its band has the width that theory gives, and its draws keep the classes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import hiddenscope as hs
from hiddenscope.analyses.bootstrap import bootstrap_over_samples


def trace(samples: int = 40, seed: int = 0) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(2, 3, 5, samples))
    return xr.DataArray(values, dims=("epoch", "step", "unit", "sample"), coords={"epoch": [-1.0, 0.0]})


def test_the_band_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    named = trace(samples=100)
    band = bootstrap_over_samples(named, lambda drawn: drawn.mean("sample"), n_boot=400, level=0.9)
    expected = 2 * 1.645 * named.std("sample") / 10
    assert_allclose((band.high - band.low) / expected, 1, atol=0.25)
    assert_allclose(((band.high - band.low) / expected).mean(), 1, atol=0.04)
    assert_allclose(band["value"], named.mean("sample"))
    assert_allclose(band["median"], band["value"], atol=0.05)


def test_every_draw_has_as_many_samples_of_each_class() -> None:
    labels = np.repeat([0, 1, 2], [3, 10, 7])
    named = trace(samples=20).assign_coords(label=("sample", labels))
    seen = []

    def remember(drawn: xr.DataArray) -> xr.DataArray:
        seen.append(drawn["label"].values)
        return drawn.mean("sample")

    bootstrap_over_samples(named, remember, n_boot=5)
    assert len(seen) == 6
    for drawn in seen:
        assert_array_equal(np.bincount(drawn), [3, 10, 7])


def test_a_whole_embedding_can_be_drawn_anew_and_a_seed_fixes_the_band() -> None:
    def mean_entropy(drawn: xr.DataArray) -> xr.DataArray:
        picture = hs.embed(drawn, method="pca", n_components=2, random_state=0)
        entropy = hs.intra_step_entropy(picture)
        assert isinstance(entropy, xr.DataArray)
        return entropy.mean("step")

    first, second, other = (bootstrap_over_samples(trace(), mean_entropy, n_boot=6, seed=seed) for seed in (1, 1, 2))
    assert first.sizes == {"epoch": 2}
    assert first.identical(second)
    assert not first.identical(other)
    assert (first.low <= first["median"]).all()
    assert (first["median"] <= first.high).all()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="n_boot must be at least 2, got 1"):
        bootstrap_over_samples(trace(), lambda drawn: drawn, n_boot=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 90"):
        bootstrap_over_samples(trace(), lambda drawn: drawn, level=90)
