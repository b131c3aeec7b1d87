"""Diffusion: PHATE's own functions and plain float64 algebra as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist, squareform

from hiddenscope.embeddings.diffusion import (
    diffusion_potential,
    diffusion_time,
    knee_point,
    potential_distances,
    spectrum,
    von_neumann_entropy,
)


def random_operator(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """A symmetric kernel on a noisy curve and its degrees."""
    generator = np.random.default_rng(seed)
    points = np.sort(generator.random(count))[:, None] * 8 + generator.normal(0, 0.05, (count, 3))
    kernel = np.exp(-(squareform(pdist(points)) ** 2))
    return kernel, kernel.sum(axis=1)


@given(arrays(np.float64, st.integers(4, 40), elements=st.floats(0, 10)))
def test_the_knee_is_the_one_that_phate_finds(heights: np.ndarray) -> None:  # type: ignore[type-arg]
    phate = pytest.importorskip("phate")
    heights = np.sort(heights)[::-1] + np.linspace(1, 0, len(heights)) ** 3
    assert knee_point(heights) == phate.vne.find_knee_point(heights)


def test_the_entropy_and_time_of_a_symmetric_operator_are_those_of_phate() -> None:
    phate = pytest.importorskip("phate")
    kernel, degrees = random_operator()
    symmetric = kernel / np.sqrt(degrees) / np.sqrt(degrees)[:, None]
    values = spectrum(symmetric.astype(np.float32)).values
    expected = phate.vne.compute_von_neumann_entropy(symmetric)
    np.testing.assert_allclose(von_neumann_entropy(values), expected, atol=1e-4)
    assert knee_point(expected) == phate.vne.find_knee_point(expected)
    assert abs(diffusion_time(values) - knee_point(expected)) <= 1  # float32 may tip a near tie


def test_entropy_of_a_single_state_is_zero_and_of_equal_states_the_logarithm_of_their_number() -> None:
    np.testing.assert_allclose(von_neumann_entropy(np.array([1.0, 0.0]), longest=3), 0, atol=1e-12)
    np.testing.assert_allclose(von_neumann_entropy(np.ones(5), longest=3), np.log(5))


@pytest.mark.parametrize("gamma", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("t", [1, 7, 30])
def test_the_potential_equals_that_of_the_powered_operator(gamma: float, t: int) -> None:
    kernel, degrees = random_operator()
    powered = np.linalg.matrix_power(kernel / degrees[:, None], t)
    expected = -np.log(powered + 1e-7) if gamma == 1 else 2 / (1 - gamma) * powered ** ((1 - gamma) / 2)
    symmetric = (kernel / np.sqrt(degrees) / np.sqrt(degrees)[:, None]).astype(np.float32)
    found = diffusion_potential(spectrum(symmetric), degrees.astype(np.float32), t=t, gamma=gamma)
    # a power of 1/2 or a logarithm magnifies the float32 rounding (1e-7) of entries that are nearly 0
    tolerance = {-1.0: 1e-5, 0.0: 2e-3, 0.5: 8e-2}.get(gamma)
    if tolerance is not None:
        np.testing.assert_allclose(found, expected, atol=tolerance)
    distances = potential_distances(spectrum(symmetric), degrees.astype(np.float32), t=t, gamma=gamma)
    oracle = squareform(pdist(expected))
    assert np.corrcoef(distances[np.triu_indices(60, 1)], oracle[np.triu_indices(60, 1)])[0, 1] > 0.9995
    np.testing.assert_array_equal(distances, distances.T)
    assert not np.diagonal(distances).any()


def test_a_knee_needs_three_heights() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        knee_point(np.array([1.0, 0.0]))
