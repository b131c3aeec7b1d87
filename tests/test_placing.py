"""Placing: nodes of the fit land where the fit put them, others beside those they resemble."""

from __future__ import annotations

import numpy as np
import pytest

from engine_examples import correlation, recurrent_trace
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.placing import Placer, place, placer
from hiddenscope.embeddings.streaming import StreamingSolution, embed_nodes


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, StreamingSolution, Placer]:  # type: ignore[type-arg]
    nodes = np.asarray(normalize(recurrent_trace(25, 21, 6, 10)[:, 1:]))  # the first step is the same in every epoch
    solution = embed_nodes(nodes, n_landmark=150)
    return nodes, solution, placer(solution)


def test_nodes_of_the_fit_land_where_the_fit_put_them(
    fitted: tuple[np.ndarray, StreamingSolution, Placer],  # type: ignore[type-arg]
) -> None:
    nodes, solution, guide = fitted
    np.testing.assert_allclose(place(guide, nodes), solution.positions, atol=1e-3 * solution.refined.std())
    np.testing.assert_allclose(
        place(guide, nodes[40:43]), solution.positions[40:43], atol=1e-3 * solution.refined.std()
    )


def test_epochs_left_out_of_a_fit_land_near_where_a_fit_with_them_has_them() -> None:
    trace = recurrent_trace(25, 20, 6, 10)
    nodes = np.asarray(normalize(trace)).reshape(25, 20, 6, 10)
    solution = embed_nodes(np.delete(nodes, [8, 16], axis=0).reshape(-1, 6, 10), n_landmark=150)
    placed = place(placer(solution), nodes[[8, 16]].reshape(-1, 6, 10))
    neighbors = solution.positions.reshape(23, 20, 6, 3)
    between = np.stack([(neighbors[7] + neighbors[8]) / 2, (neighbors[14] + neighbors[15]) / 2])
    assert correlation(placed, between) > 0.95


def test_placing_moves_nothing_and_needs_no_company(
    fitted: tuple[np.ndarray, StreamingSolution, Placer],  # type: ignore[type-arg]
) -> None:
    nodes, solution, guide = fitted
    before = solution.positions.copy()
    together = place(guide, nodes[10:20])
    alone = np.concatenate([place(guide, nodes[number : number + 1]) for number in range(10, 20)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(solution.positions, before)


def test_excluded_nodes_have_no_place(fitted: tuple[np.ndarray, StreamingSolution, Placer]) -> None:  # type: ignore[type-arg]
    nodes, _, guide = fitted
    gaps = nodes[:4].copy()
    gaps[1] = np.nan
    gaps[2, 3] = np.nan
    np.testing.assert_array_equal(np.isnan(place(guide, gaps)).any(axis=2), np.isnan(gaps).any(axis=2))


def test_other_units_or_samples_are_refused(fitted: tuple[np.ndarray, StreamingSolution, Placer]) -> None:  # type: ignore[type-arg]
    nodes, _, guide = fitted
    with pytest.raises(ValueError, match="6 units, got 5"):
        place(guide, nodes[:, :5])
    with pytest.raises(ValueError, match="same probe samples"):
        place(guide, nodes[..., :9])
