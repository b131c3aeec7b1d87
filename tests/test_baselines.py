"""Pictures by other methods: each sees the same matrix, and is the library's own answer to it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap, LocallyLinearEmbedding

import hiddenscope as hs
from hiddenscope.embeddings import baselines
from hiddenscope.experiments.datasets.bifurcations import simulate

FAST = ("pca", "isomap", "lle", "mmphate", "mphate")
SLOW = [
    pytest.param("phate", marks=pytest.mark.slow),
    pytest.param("tsne", marks=pytest.mark.slow),
    pytest.param("umap", marks=pytest.mark.slow),
]


def smooth_trace() -> xr.DataArray:
    """Five units on slow curves through the space of seven samples, with a little noise."""
    rng = np.random.default_rng(0)
    phase = np.linspace(0, 3, 6)[:, None, None] + np.linspace(0, 2, 8)[None, :, None] + np.arange(5)
    directions = rng.normal(size=(3, 7))
    values = np.stack([np.cos(phase), np.sin(phase), phase / 3], axis=-1) @ directions
    return xr.DataArray(
        values + 0.01 * rng.normal(size=values.shape),
        dims=("epoch", "step", "unit", "sample"),
        coords={"epoch": np.arange(6) - 1.0, "step": np.arange(8), "unit": list("abcde")},
        name="lstm",
    )


def nodes(trace: xr.DataArray) -> np.ndarray:
    values = trace.values.astype(np.float64)
    centered = values - values.mean(axis=-1, keepdims=True)
    return (centered / centered.std(axis=-1, keepdims=True)).reshape(-1, trace.sizes["sample"])


@pytest.mark.filterwarnings("ignore:inter_knn lowered", "ignore:.*SGD-MDS may not have converged")
@pytest.mark.parametrize("method", [*FAST, *SLOW])
def test_every_method_gives_a_seeded_picture_that_keeps_more_than_chance(method: baselines.Method) -> None:
    trace = smooth_trace()
    picture = hs.embed(trace, method=method, n_components=2, random_state=3)
    assert isinstance(picture, xr.DataArray)
    assert picture.dims == ("epoch", "step", "unit", "component")
    assert picture.sizes == {"epoch": 6, "step": 8, "unit": 5, "component": 2}
    assert_array_equal(picture.unit, trace.unit)
    assert picture.attrs == {"method": method, "note": ""}
    assert np.isfinite(picture).all()
    assert_array_equal(hs.embed(trace.values, method=method, n_components=2, random_state=3), picture.values)
    kept = hs.neighborhood_preservation(trace, picture, k=5, intra_k=2)
    assert kept.inter > (1.3 if method == "mphate" else 2) * kept.inter_chance  # M-PHATE cannot tell steps apart


def test_pca_of_the_normalized_nodes_is_scikit_learns() -> None:
    trace = smooth_trace()
    expected = PCA(3).fit_transform(nodes(trace))
    assert_allclose(hs.embed(trace, method="pca"), expected.reshape(6, 8, 5, 3), atol=1e-4)  # float32 inside
    raw = PCA(3).fit_transform(trace.values.reshape(-1, 7))
    assert_allclose(hs.embed(trace, method="pca", normalized=False), raw.reshape(6, 8, 5, 3), atol=1e-4)


def test_isomap_and_lle_are_scikit_learns_up_to_sign() -> None:
    trace = smooth_trace()
    flat = nodes(trace)
    for method, model in (("isomap", Isomap(n_components=2)), ("lle", LocallyLinearEmbedding(n_components=2))):
        expected = model.fit_transform(flat)
        found = hs.embed(trace.values, method=method, n_components=2, random_state=0).reshape(-1, 2)  # type: ignore[arg-type]
        for axis in range(2):
            assert abs(np.corrcoef(expected[:, axis], found[:, axis])[0, 1]) > 0.999


def test_published_pca_picture_of_the_benchmark_has_its_published_score() -> None:
    trace = simulate("hopf_bif__pitchfork_bif__no_warp")
    picture = hs.embed(trace, method="pca", normalized=False)
    assert_allclose(hs.neighborhood_preservation(trace, picture, intra_k=2).inter, 0.1487, atol=1e-4)


def test_mphate_shows_all_steps_of_a_unit_at_one_place() -> None:
    trace = smooth_trace()
    with pytest.warns(UserWarning, match="inter_knn lowered"):
        picture = np.asarray(hs.embed(trace.values, method="mphate", n_components=2, random_state=0))
    assert (picture == picture[:, :1]).all()
    assert len(np.unique(picture.reshape(-1, 2), axis=0)) == 6 * 5


def test_with_too_many_nodes_the_others_are_placed_beside_those_that_are_like_them() -> None:
    trace = smooth_trace()
    for method in ("pca", "isomap", "lle"):
        whole = hs.embed(trace, method=method, n_components=2, random_state=0)  # type: ignore[arg-type]
        part = hs.embed(trace, method=method, n_components=2, random_state=0, max_nodes=120)  # type: ignore[arg-type]
        assert isinstance(part, xr.DataArray)
        assert part.attrs["note"] == "fitted on 120 of 240 nodes, the others placed afterwards"
        assert np.isfinite(part).all()
        kept = [hs.neighborhood_preservation(trace, picture, k=5, intra_k=2).inter for picture in (whole, part)]
        assert kept[1] > 0.6 * kept[0]


def test_a_default_limit_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_NODES", {"isomap": 100})
    picture = hs.embed(smooth_trace(), method="isomap", random_state=0)
    assert isinstance(picture, xr.DataArray)
    assert picture.attrs["note"].startswith("fitted on 100 of 240 nodes")


def test_nodes_with_missing_values_have_no_place() -> None:
    trace = smooth_trace()
    trace[:, 6:, :, : trace.shape[-1] // 2 + 1] = np.nan
    for method in ("pca", "isomap"):
        picture = hs.embed(trace, method=method, random_state=0)  # type: ignore[arg-type]
        assert np.isnan(picture[:, 6:]).all()
        assert np.isfinite(picture[:, :6]).all()


def test_options_reach_the_method() -> None:
    trace = smooth_trace()
    near = hs.embed(trace, method="isomap", random_state=0, options={"n_neighbors": 4})
    assert not np.allclose(near, hs.embed(trace, method="isomap", random_state=0))


@pytest.mark.parametrize(("module", "method"), [("openTSNE", "tsne"), ("umap", "umap")])
def test_a_missing_library_is_reported_with_its_install_line(
    module: str, method: baselines.Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(hs.MissingExtraError, match=r"pip install 'hiddenscope\[baselines\]'"):
        hs.embed(smooth_trace(), method=method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "som"}, "method must be one of pca, tsne, umap, isomap, lle, phate, mphate, mmphate, got 'som'"),
        ({"method": "pca", "max_nodes": 1}, "max_nodes must be at least 2, got 1"),
        ({"method": "mmphate", "normalized": False}, "mmphate is defined on all normalized nodes"),
        ({"method": "mphate", "max_nodes": 100}, "mphate is defined on all normalized nodes"),
        ({"method": "phate", "max_nodes": 100}, "phate takes all nodes"),
    ],
)
def test_what_a_method_does_not_take_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hs.embed(smooth_trace(), **options)  # type: ignore[arg-type]


def test_importing_the_baselines_loads_none_of_them() -> None:
    import subprocess

    check = (
        "import sys, hiddenscope.embeddings.baselines\n"
        "heavy = {'umap', 'openTSNE', 'phate', 'graphtools', 'sklearn.manifold', 'torch'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
