"""The estimator: scikit-learn's contract, the kinds it takes and returns, and PHATE itself as an oracle."""

from __future__ import annotations

import warnings

import graphtools
import numpy as np
import numpy.typing as npt
import phate
import pytest
import scipy.sparse
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import procrustes
from sklearn.base import clone
from sklearn.utils import estimator_checks

import hiddenscope as hs

Array = npt.NDArray[np.float64]


def walk(*shape: int, seed: int = 0) -> Array:
    """A trace whose units drift over epochs and steps, so that there is something to see."""
    epochs, steps, units, samples = shape
    rng = np.random.default_rng(seed)
    drift = rng.normal(size=(epochs, 1, units, samples)).cumsum(axis=0) + rng.normal(size=(1, steps, units, samples))
    return drift + 0.1 * rng.normal(size=shape)


def exact(**options: object) -> hs.MMPHATE:
    return hs.MMPHATE(**{"solver": "exact", "inter_knn": 5, "random_state": 0, **options})  # type: ignore[arg-type]


def correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Procrustes correlation: 1 when two pictures agree up to place, turn, mirror and scale."""
    one, other = (np.asarray(picture, float).reshape(-1, np.asarray(picture).shape[-1]) for picture in (one, other))
    return float(np.sqrt(1 - procrustes(one, other)[2]))


@pytest.mark.parametrize(
    "check",
    [
        # The other checks of scikit-learn feed tables of samples and features, which are not traces.
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_estimator_keeps_the_contract_of_scikit_learn(check: object) -> None:
    check("MMPHATE", hs.MMPHATE())  # type: ignore[operator]


@pytest.mark.parametrize("n_components", [2, 3])
@pytest.mark.parametrize("n_landmark", [None, 60])
def test_picture_has_a_position_for_every_node(n_components: int, n_landmark: int | None) -> None:
    picture = exact(n_components=n_components, n_landmark=n_landmark).fit_transform(walk(4, 5, 6, 7))
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (4, 5, 6, n_components)
    assert np.isfinite(picture).all()
    assert (
        np.linalg.matrix_rank(picture.reshape(-1, n_components) - picture.reshape(-1, n_components).mean(0))
        == n_components
    )


def test_named_trace_gives_a_named_picture_with_its_coordinates() -> None:
    trace = xr.DataArray(
        walk(3, 4, 5, 6),
        dims=("epoch", "step", "unit", "sample"),
        coords={"epoch": [-1, 0, 5], "unit": list("abcde"), "label": ("sample", [0, 0, 1, 1, 2, 2])},
        name="lstm",
    )
    picture = exact().fit_transform(trace.transpose("sample", "unit", "epoch", "step"))
    assert isinstance(picture, xr.DataArray)
    assert picture.dims == ("epoch", "step", "unit", "component")
    assert picture.name == "lstm"
    assert picture.epoch.values.tolist() == [-1, 0, 5]
    assert picture.unit.values.tolist() == list("abcde")
    assert "label" not in picture.coords
    assert_array_equal(picture.values, exact().fit_transform(trace.values))


def test_same_seed_gives_the_same_picture_whatever_the_global_generator() -> None:
    trace = walk(4, 6, 5, 6)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    one = exact(n_landmark=50).fit_transform(trace)
    assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert_array_equal(exact(n_landmark=50).fit_transform(trace), one)
    other = exact(n_landmark=50, random_state=np.random.default_rng(3)).fit_transform(trace)
    assert not np.array_equal(other, one)
    assert_array_equal(
        exact(n_landmark=50, random_state=np.random.RandomState(5)).fit_transform(trace).shape, one.shape
    )


def test_a_second_fit_forgets_the_first() -> None:
    first, second = walk(4, 5, 6, 7), walk(3, 4, 5, 6, seed=1)
    estimator = exact().fit(first)
    refitted = estimator.fit(second).embedding_
    assert_array_equal(refitted, exact().fit_transform(second))
    assert estimator.n_features_in_ == 6


def test_set_params_takes_effect_and_clone_copies_no_fit() -> None:
    trace = walk(4, 5, 6, 7)
    estimator = exact().fit(trace)
    copy = clone(estimator)
    assert not hasattr(copy, "embedding_")
    assert_array_equal(
        copy.set_params(n_components=2, t=3).fit(trace).embedding_, exact(n_components=2, t=3).fit_transform(trace)
    )
    assert copy.diffusion_time_ == 3


def test_picture_is_that_of_an_unmodified_phate_on_the_same_graph() -> None:
    trace = walk(8, 10, 5, 6)
    kernel = hs.multislice_kernel(trace)
    graph = graphtools.Graph(
        scipy.sparse.csr_matrix(kernel), precomputed="affinity", n_landmark=150, n_svd=100, random_state=0, verbose=0
    )
    operator = phate.PHATE(n_components=3, gamma=0, n_landmark=150, mds_solver="smacof", random_state=0, verbose=0)
    expected = operator.fit_transform(graph)
    estimator = exact(inter_knn=25, n_landmark=150).fit(trace)
    assert estimator.diffusion_time_ == operator.optimal_t
    assert correlation(estimator.embedding_, expected) > 0.9999


@pytest.mark.parametrize("gamma", [1, 0.5, -1])
def test_every_gamma_gives_phates_potential(gamma: float) -> None:
    trace = walk(3, 4, 5, 6)
    graph = graphtools.Graph(
        scipy.sparse.csr_matrix(hs.multislice_kernel(trace, inter_knn=5)), precomputed="affinity", verbose=0
    )
    operator = phate.PHATE(
        n_components=2, t=4, gamma=gamma, n_landmark=None, mds_solver="smacof", random_state=0, verbose=0
    )
    assert (
        correlation(exact(n_components=2, t=4, gamma=gamma).fit_transform(trace), operator.fit_transform(graph)) > 0.999
    )


def test_units_that_respond_alike_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(2, 5, 8, 12)).cumsum(axis=1)
    trace = np.stack([signals[unit // 3] for unit in range(6)], axis=2) + 0.05 * rng.normal(size=(5, 8, 6, 12))
    picture = np.asarray(exact(inter_knn=10).fit_transform(trace))
    same = np.linalg.norm(picture[:, :, 0] - picture[:, :, 1], axis=-1).mean()
    other = np.linalg.norm(picture[:, :, 0] - picture[:, :, 3], axis=-1).mean()
    assert other > 5 * same


def test_order_of_units_and_samples_does_not_matter() -> None:
    trace = walk(4, 5, 6, 7)
    picture = exact().fit_transform(trace)
    assert correlation(exact().fit_transform(trace[:, :, ::-1]), picture[:, :, ::-1]) > 0.999
    assert correlation(exact().fit_transform(trace[..., ::-1]), picture) > 0.999


def degenerate() -> dict[str, Array]:
    constant, coincident, repeated = walk(4, 5, 6, 7), walk(4, 5, 6, 7), walk(4, 5, 6, 7)
    constant[:, :, 2] = 0.0
    coincident[:, :, 3] = coincident[:, :, 4]
    repeated[:] = repeated[:1]
    return {
        "smallest": walk(2, 2, 2, 2),
        "two slices": walk(2, 1, 3, 4),
        "one unit": walk(3, 4, 1, 5),
        "dead unit": constant,
        "coincident units": coincident,
        "repeated epochs": repeated,
        "all alike": np.ones((3, 4, 5, 6)),
    }


@pytest.mark.parametrize("name", degenerate())
def test_degenerate_traces_give_finite_pictures(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "inter_knn lowered")
        picture = exact(n_components=2).fit_transform(degenerate()[name])
    assert np.isfinite(picture).all()


def test_missing_steps_come_back_missing_and_leave_the_rest_as_without_them() -> None:
    trace = walk(4, 6, 5, 7)
    padded = trace.copy()
    padded[:, 4:, :, 1:5] = np.nan
    picture = np.asarray(exact().fit_transform(padded))
    assert np.isnan(picture[:, 4:]).all()
    assert_allclose(picture[:, :4], exact().fit_transform(trace[:, :4]), atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1, got 0"),
        ({"n_landmark": 1}, "n_landmark must be a whole number of at least 2, got 1"),
        ({"t": 0}, "t must be 'auto' or a whole number of at least 1, got 0"),
        ({"t": "knee"}, "t must be 'auto' or a whole number of at least 1, got 'knee'"),
        ({"gamma": 2}, r"gamma must lie in -1\.\.1, got 2"),
        ({"solver": "guess"}, "solver must be one of .*'exact'.*, got 'guess'"),
        ({"random_state": "lucky"}, "random_state must be None, a seed .* got 'lucky'"),
        ({"intra_knn": -1}, "intra_knn counts neighbors"),
    ],
)
def test_bad_options_are_named_before_anything_is_computed(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact(**options).fit(walk(2, 2, 3, 4))


def test_exact_solver_refuses_what_does_not_fit_and_says_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiddenscope.embeddings.memory.available_memory", lambda: 2**24)
    with pytest.raises(MemoryError, match=r"solver='exact' on 7,200 nodes would take .*use solver='streaming'"):
        exact(inter_knn=200).fit(walk(30, 40, 6, 3))
    with pytest.raises(MemoryError, match=r"diffusion among 1,000 landmarks would take .* lower n_landmark"):
        exact().fit(walk(20, 14, 4, 8))
