"""Spectral coordinates against the materialized kernel, and landmarks chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from engine_examples import correlation, recurrent_trace
from hiddenscope import MMPHATE
from hiddenscope.embeddings import kernel as reference
from hiddenscope.embeddings.intra import intra_kernel
from hiddenscope.embeddings.landmarks import choose_landmarks
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.spectral import spectral_coordinates
from hiddenscope.embeddings.unit_rows import unit_rows


def test_the_coordinates_span_those_of_the_materialized_kernel() -> None:
    nodes = np.asarray(normalize(recurrent_trace(8, 6, 5, 8)))
    rows = unit_rows(nodes)
    kernel = reference.assemble_kernel(nodes, bandwidth=0.8).toarray()
    units = np.repeat(np.arange(rows.n_units), np.diff(rows.offsets))
    order = rows.slices * rows.n_units + units
    kernel = kernel[np.ix_(order, order)]
    degrees = kernel.sum(axis=1)
    values, vectors = scipy.linalg.eigh(kernel / np.sqrt(degrees) / np.sqrt(degrees)[:, None])
    transitions = kernel / degrees[:, None]
    # With every eigenvector the coordinates are the transitions in another basis.
    whole = spectral_coordinates(rows, intra_kernel(rows), bandwidth=0.8, n_components=len(kernel)).astype(float)
    np.testing.assert_allclose(whole @ whole.T, transitions @ transitions.T, atol=1e-5)
    # With some, those that matter most are among them.
    some = spectral_coordinates(rows, intra_kernel(rows), bandwidth=0.8, n_components=30).astype(float)
    leading = transitions @ vectors[:, ::-1][:, :5]
    assert values[::-1][4] > 0.5
    assert scipy.linalg.subspace_angles(some, leading).max() < 0.02


def test_landmarks_by_coordinates_have_the_mean_response_of_their_nodes_as_centers() -> None:
    rows = unit_rows(normalize(recurrent_trace(8, 6, 5, 8)))
    coordinates = np.random.default_rng(0).normal(size=(len(rows.values), 3)).astype(np.float32)
    found = choose_landmarks(rows, 40, coordinates=coordinates)
    for landmark in range(len(found.centers)):
        members = rows.values[found.labels == landmark]
        assert found.sizes[landmark] == len(members) > 0
        np.testing.assert_allclose(found.centers[landmark], members.mean(axis=0), atol=1e-5)
    by_response = choose_landmarks(rows, 40)
    assert not np.array_equal(found.labels, by_response.labels)


def test_the_picture_by_spectral_landmarks_is_much_like_the_usual_one() -> None:
    trace = recurrent_trace(20, 12, 6, 10)
    usual, spectral = (
        MMPHATE(n_landmark=300, landmarks=kind, refine=0, random_state=0).fit_transform(trace)
        for kind in ("per_unit", "spectral")
    )
    assert correlation(usual, spectral) > 0.9
    assert np.abs(np.asarray(usual) - np.asarray(spectral)).max() > 0


def test_options_that_a_solver_cannot_honor_are_refused() -> None:
    trace = recurrent_trace(3, 4, 3, 5)
    with pytest.raises(ValueError, match="landmarks must be one of"):
        MMPHATE(landmarks="nonsense").fit(trace)
    with pytest.raises(ValueError, match=r"landmarks='spectral' works with solver='streaming'"):
        MMPHATE(landmarks="spectral", solver="exact").fit(trace)
    with pytest.raises(ValueError, match=r"device='cpu' works with solver='streaming'"):
        MMPHATE(device="cpu", solver="phate").fit(trace)
