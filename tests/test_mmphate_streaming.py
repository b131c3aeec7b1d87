"""The streaming solver behind the estimator: as true as the exact one, on hidden states of a real network."""

from __future__ import annotations

import functools
import warnings

import graphtools
import numpy as np
import phate
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

import hiddenscope as hs
from hiddenscope.embeddings.agreement import procrustes_correlation
from hiddenscope.embeddings.bandwidth import SAMPLED_ROWS
from hiddenscope.embeddings.refinement import EPOCHS
from hiddenscope.experiments.datasets.digits import digits_split
from hiddenscope.experiments.datasets.hidden_states import train_lstm


@functools.cache
def lstm() -> xr.DataArray:
    """24 epochs x 8 steps x 16 units x 20 samples of an LSTM that learns to read digits."""
    return train_lstm(digits_split(), units=16, snapshots=24, batches=12, samples=20)


def streaming(**options: object) -> hs.MMPHATE:
    return hs.MMPHATE(**{"random_state": 0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epochs", "n_landmark", "n_components"),
    [
        (6, 1000, 3),  # every node is its own landmark
        (24, 300, 2),
        (24, 300, 3),
    ],
)
def test_plain_picture_agrees_with_the_exact_solver(epochs: int, n_landmark: int, n_components: int) -> None:
    trace = lstm().values[:epochs, :, :8]
    options = {"n_components": n_components, "n_landmark": n_landmark}
    exact = streaming(solver="exact", **options).fit(trace)
    plain = streaming(refine=0, bandwidth="exact", **options).fit(trace)
    assert plain.bandwidth_ == pytest.approx(exact.bandwidth_, rel=1e-5)
    assert procrustes_correlation(plain.embedding_, exact.embedding_) > 0.98


def test_unmodified_phate_draws_the_same_picture_of_the_streamed_graph() -> None:
    trace = lstm()[:8]
    graph = hs.multislice_graph(trace, n_landmark=250, bandwidth="exact", random_state=0)
    assert isinstance(graph, graphtools.base.BaseGraph)
    operator = phate.PHATE(n_components=3, gamma=0, random_state=0, verbose=0)
    by_hand = operator.fit_transform(graph)
    assert by_hand.shape == (trace.isel(sample=0).size, 3)
    solver = streaming(solver="phate", n_landmark=250, bandwidth="exact").fit(trace)
    assert_allclose(np.asarray(solver.embedding_).reshape(-1, 3), by_hand, atol=1e-6)
    assert solver.diffusion_time_ == operator.optimal_t
    exact = streaming(solver="exact", n_landmark=250).fit_transform(trace)
    assert procrustes_correlation(solver.embedding_, exact) > 0.98


def test_streamed_graph_is_what_graphtools_makes_of_the_kernel_and_the_same_clusters() -> None:
    trace = lstm().values[:8, :, :6].copy()
    trace[2, 3] = np.nan
    graph = hs.multislice_graph(trace, n_landmark=60, bandwidth="exact", random_state=0)
    kernel = hs.multislice_kernel(trace).toarray()
    present = np.flatnonzero(kernel.diagonal())
    kernel = kernel[np.ix_(present, present)]
    assert_array_equal(graph.nodes, present)
    assert_allclose(graph.kernel.toarray(), kernel, atol=1e-5)
    members = np.eye(graph.n_landmark)[graph.clusters]
    sums = members.T @ kernel
    spread = sums.T / sums.T.sum(axis=1, keepdims=True)
    gather = sums / sums.sum(axis=1, keepdims=True)
    assert_allclose(graph.landmark_op, gather @ spread, rtol=1e-4, atol=1e-6)
    assert_allclose(graph.landmark_op.sum(axis=1), 1.0, atol=1e-5)
    positions = np.random.default_rng(0).normal(size=(graph.n_landmark, 3))
    assert_allclose(graph.interpolate(positions), spread @ positions, atol=1e-5)
    assert_allclose(graph.transitions @ np.ones(graph.n_landmark), 1.0, atol=1e-5)


def test_graph_without_landmarks_is_exact_and_new_responses_are_refused() -> None:
    trace = lstm().values[:5, :, :5]
    graph = hs.multislice_graph(trace, n_landmark=None, bandwidth="exact")
    assert_allclose(graph.kernel.toarray(), hs.multislice_kernel(trace).toarray(), atol=1e-5)
    landmarked = hs.multislice_graph(trace, n_landmark=40, random_state=0)
    with pytest.raises(NotImplementedError, match=r"use MMPHATE\.transform"):
        landmarked.extend_to_data(landmarked.data[:3])


def test_fitted_epochs_land_where_the_fit_put_them() -> None:
    trace = lstm()
    estimator = streaming().fit(trace)
    found = estimator.transform(trace[15:])
    assert isinstance(found, xr.DataArray)
    assert_array_equal(found.epoch, trace.epoch[15:])
    assert procrustes_correlation(found, estimator.embedding_[15:]) > 0.99
    assert np.abs(found - estimator.embedding_[15:]).max() < 0.5 * float(estimator.embedding_.std())


def test_later_epochs_land_where_a_fit_of_all_would_put_them() -> None:
    trace = lstm()
    half = streaming().fit(trace[::2])
    whole = streaming().fit(trace)
    # The other half of the epochs was not seen; the two pictures are compared up to turn and scale.
    assert procrustes_correlation(half.transform(trace[1::2]), whole.embedding_[1::2]) > 0.95


def test_other_units_and_other_samples_are_refused() -> None:
    trace = lstm()
    estimator = streaming().fit(trace[:6])
    with pytest.raises(ValueError, match="made of 16 units, got 15; unit and sample must be those of the fit"):
        estimator.transform(trace[6:8, :, :15])
    with pytest.raises(ValueError, match="made of 20 samples, got 19"):
        estimator.transform(trace.values[6:8, ..., :19])
    with pytest.raises(ValueError, match="made from other samples; record the same probe samples"):
        estimator.transform(trace[6:8, ..., ::-1])
    with pytest.raises(ValueError, match="made of 8 steps, got 7; step and unit and sample must be"):
        estimator.partial_fit(trace[6:8, :7])
    with pytest.raises(ValueError, match=r"epochs \[3, 4\] are in the picture already; fit the whole trace"):
        estimator.partial_fit(trace[4:6])
    with pytest.raises(NotFittedError):
        streaming().transform(trace)


def test_only_the_streaming_solver_takes_in_other_epochs() -> None:
    assert hasattr(streaming(), "transform")
    for solver in ("exact", "phate"):
        assert not hasattr(streaming(solver=solver), "transform")
        assert not hasattr(streaming(solver=solver), "partial_fit")
    switched = streaming(solver="exact", n_landmark=60).fit(lstm()[:4, :, :3]).set_params(solver="streaming")
    with pytest.raises(NotFittedError, match="made by another solver; fit it again"):
        switched.transform(lstm()[:1, :, :3])


def test_partial_fit_follows_a_training_without_jumps_and_stays_near_a_full_fit() -> None:
    trace = lstm()
    estimator = streaming(n_landmark=300).partial_fit(trace[:8])
    assert estimator.target_ is None
    assert estimator.drift() == 0
    for epoch in range(8, 24, 2):
        before = estimator.embedding_
        estimator.partial_fit(trace[epoch : epoch + 2])
        assert isinstance(estimator.embedding_, xr.DataArray)
        assert_array_equal(estimator.embedding_.epoch, trace.epoch[: epoch + 2])
        moves = np.linalg.norm(estimator.embedding_[:epoch].values - before.values, axis=-1)
        assert moves.max() <= 0.3 * float(before.std())
    assert np.isfinite(estimator.embedding_).all()
    assert 0 <= estimator.drift() < 0.2
    assert procrustes_correlation(estimator.target_, streaming(n_landmark=300).fit_transform(trace)) > 0.8
    again = estimator.transform(trace[20:])
    assert procrustes_correlation(again, estimator.embedding_[20:]) > 0.99
    refitted = estimator.fit(trace[:5])
    assert refitted.live_ is None
    assert refitted.target_ is None
    assert refitted.embedding_.sizes["epoch"] == 5


def test_plain_arrays_are_taken_in_too_and_their_epochs_are_counted_on() -> None:
    trace = lstm().values
    estimator = streaming().fit(trace[:6]).partial_fit(trace[6:8])
    assert isinstance(estimator.embedding_, np.ndarray)
    assert estimator.embedding_.shape == (8, 8, 16, 3)


@pytest.mark.parametrize("solver", ["streaming", "phate", "exact"])
def test_every_solver_takes_the_smallest_the_dead_the_repeated_and_the_missing(solver: str) -> None:
    rng = np.random.default_rng(0)
    dead, repeated, missing = (rng.normal(size=(4, 5, 6, 7)) for _ in range(3))
    dead[:, :, 2] = 0.0
    repeated[:] = repeated[:1]
    missing[:, 3:, :, 1:5] = np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "inter_knn lowered")
        for trace in (rng.normal(size=(2, 2, 2, 2)), dead, repeated, np.ones((3, 2, 4, 5))):
            picture = streaming(solver=solver, n_components=2).fit_transform(trace)
            assert np.isfinite(picture).all()
            assert picture.shape == (*trace.shape[:3], 2)
        picture = np.asarray(streaming(solver=solver, n_landmark=30).fit_transform(missing))
    assert np.isnan(picture[:, 3:]).all()
    assert np.isfinite(picture[:, :3]).all()


@pytest.mark.filterwarnings("ignore:inter_knn lowered")
def test_partial_fit_takes_the_repeated_the_constant_and_the_smallest() -> None:
    rng = np.random.default_rng(0)
    awake = np.concatenate([np.ones((4, 5, 6, 7)), rng.normal(size=(4, 5, 6, 7))])
    repeated = np.repeat(rng.normal(size=(1, 5, 6, 7)), 15, axis=0)
    for trace in (
        repeated,
        np.ones((6, 5, 6, 7)),
        awake,
        rng.normal(size=(8, 5, 1, 7)),
        rng.normal(size=(8, 2, 2, 2)),
    ):
        estimator = streaming(n_components=2, n_landmark=40).fit(trace[:2])
        for epoch in range(2, len(trace)):
            estimator.partial_fit(trace[epoch : epoch + 1])
        assert np.shape(estimator.embedding_) == (*trace.shape[:3], 2)
        assert np.isfinite(estimator.embedding_).all()


def test_too_few_slices_are_said_and_one_sample_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="inter_knn lowered from 25 to 11"):
        streaming().fit(rng.normal(size=(3, 4, 5, 6)))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        streaming().fit(rng.normal(size=(3, 4, 5, 1)))


def test_defaults_are_those_of_the_stages() -> None:
    assert hs.MMPHATE().bandwidth == SAMPLED_ROWS
    assert hs.MMPHATE().refine == EPOCHS
