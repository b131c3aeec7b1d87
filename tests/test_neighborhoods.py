"""Neighborhoods that grow with a training, against a search made anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engine_examples import recurrent_trace
from hiddenscope.embeddings import neighborhoods as module
from hiddenscope.embeddings.neighborhoods import (
    NEAR,
    Neighborhoods,
    carried,
    neighborhoods,
    surroundings,
    with_arrivals,
)
from hiddenscope.embeddings.neighbors import nearest_slices
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.refinement import RANKS
from hiddenscope.embeddings.unit_rows import unit_rows

Nodes = npt.NDArray[np.float32]


def normalized(epochs: int = 16, steps: int = 9, units: int = 4) -> Nodes:
    """Shape (slice, unit, sample)."""
    return normalize(recurrent_trace(epochs, steps + 1, units, 7)[:, 1:], dtype=np.float32).astype(np.float32)


def begun(nodes: Nodes) -> Neighborhoods:
    rows = unit_rows(nodes)
    return neighborhoods(rows, *nearest_slices(rows, None, max(RANKS)))


def grown(nodes: Nodes, first: int, at_once: int = 9) -> Neighborhoods:
    known = begun(nodes[:first])
    for stop in range(first + at_once, len(nodes) + 1, at_once):
        known = with_arrivals(known, nodes[:stop])
    return known


def squared_to_all(nodes: Nodes, unit: int, number: int) -> npt.NDArray[np.float64]:
    """To every other slice of the unit; nothing is near what is missing."""
    squared = np.sum((nodes[:, unit].astype(float) - nodes[number, unit]) ** 2, axis=1)
    squared[number] = np.inf
    return np.nan_to_num(squared, nan=np.inf)


def check_near(known: Neighborhoods, nodes: Nodes) -> None:
    """The near part of every list is what a search finds; distances decide, since neighbors may tie."""
    for unit in range(nodes.shape[1]):
        for number in np.flatnonzero(np.isfinite(nodes[:, unit, 0])):
            squared = squared_to_all(nodes, unit, number)
            listed = squared[known.slices[unit, number, :NEAR]]
            np.testing.assert_allclose(listed, np.sort(squared)[:NEAR], rtol=1e-4, atol=1e-5)
            assert known.reach[unit, number] == pytest.approx(listed[-1], rel=1e-4, abs=1e-5)


def test_slices_that_arrive_one_epoch_at_a_time_have_the_neighbors_that_a_search_finds() -> None:
    nodes = normalized()
    check_near(begun(nodes), nodes)
    check_near(grown(nodes, 18), nodes)
    check_near(grown(nodes, 18, at_once=18), nodes)


def test_the_wider_neighbors_are_those_of_the_day_a_slice_arrived() -> None:
    nodes = normalized()
    known = grown(nodes, 99)
    for unit in range(4):
        for number in (99, 110, 143):
            then = squared_to_all(nodes, unit, number)[: 108 + 9 * ((number - 99) // 9)]
            wanted = np.sort(then)[np.array(RANKS) - 1][NEAR:]
            listed = squared_to_all(nodes, unit, number)[known.slices[unit, number, NEAR:]]
            np.testing.assert_allclose(listed, wanted, rtol=1e-4)


def test_missing_nodes_have_no_neighbors_and_are_none() -> None:
    nodes = normalized()
    nodes[5, 1] = nodes[30:33, 2] = nodes[100] = nodes[90:99] = np.nan
    known = grown(nodes, 18)
    for unit in range(4):
        gone = np.flatnonzero(np.isnan(nodes[:, unit, 0]))
        assert (known.slices[unit, gone] == gone[:, None]).all()
        assert not np.isin(np.delete(known.slices[unit], gone, axis=0), gone).any()


def test_few_slices_fill_up_their_lists_with_themselves() -> None:
    nodes = normalized(4, 2)
    known = grown(nodes, 4, at_once=2)
    for number in range(4, 8):
        alone = known.slices[0, number] == number
        assert alone[7:].all()
    assert sorted(known.slices[0, 7, :7].tolist()) == [0, 1, 2, 3, 4, 5, 6]


def test_the_neighborhoods_before_stay_as_they_were() -> None:
    nodes = normalized()
    known = begun(nodes[:100])
    slices, reach = known.slices.copy(), known.reach.copy()
    with_arrivals(known, nodes)
    np.testing.assert_array_equal(known.slices, slices)
    np.testing.assert_array_equal(known.reach, reach)


def test_compared_with_a_sample_most_neighbors_are_found_through_the_neighbors_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = normalized(80, 12)
    exact = grown(nodes, 120, at_once=12)
    monkeypatch.setattr(module, "CANDIDATES", 200)
    found = grown(nodes, 120, at_once=12)
    shares = [
        len(np.intersect1d(exact.slices[unit, number, :NEAR], found.slices[unit, number, :NEAR])) / NEAR
        for unit in range(4)
        for number in range(120, len(nodes))
    ]
    assert np.mean(shares) > 0.8
    for unit in range(4):
        for listed in found.slices[unit, :, :NEAR]:
            assert len(np.unique(listed)) == NEAR


def test_the_surroundings_are_all_edges_of_the_active_slices_and_all_that_may_repel_them() -> None:
    nodes = normalized()
    nodes[20, 1] = np.nan
    known = begun(nodes)
    active = np.array([0, 3, 20, 21, 70, 143])
    rows = unit_rows(nodes[active])
    positions = nodes[..., :3]
    edges, around = surroundings(known, rows, active, positions)
    ends: list[list[int]] = [[] for _ in rows.values]
    name = {}
    for unit in range(4):
        for number in range(len(nodes)):
            name[unit, number] = len(rows.values) + unit * len(nodes) + number
        for position, number in enumerate(active):
            if rows.index[position, unit] >= 0:
                name[unit, int(number)] = int(rows.index[position, unit])
    for unit in range(4):
        for number in range(len(nodes)):
            for other in known.slices[unit, number]:
                one, two = name[unit, number], name[unit, int(other)]
                for end, far in ((one, two), (two, one)):
                    if end < len(rows.values) and one != two:
                        ends[end].append(far)
    for row in range(len(rows.values)):
        assert sorted(edges.neighbors[edges.starts[row] : edges.starts[row + 1]].tolist()) == sorted(ends[row])
    everyone = np.concatenate([rows.values[:, :3], around.positions])
    for unit in range(4):
        wanted = positions[np.isfinite(positions[:, unit, 0]), unit]
        np.testing.assert_array_equal(everyone[around.repelling[unit]], wanted)
        assert sum(around.repelling[unit] < len(rows.values)) == len(active) - (unit == 1)


def test_nodes_are_carried_along_by_the_landmarks_around_them() -> None:
    nodes = normalized()
    nodes[7, 2] = np.nan
    known = begun(nodes)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 9, nodes.shape[:2]).astype(np.int32)
    labels[7, 2] = -1
    moves = generator.normal(size=(9, 3)).astype(np.float32)
    found = carried(known, labels, moves)
    assert (found[7, 2] == 0).all()
    for number, unit in ((0, 0), (6, 2), (143, 3)):
        others = [number, *(int(other) for other in known.slices[unit, number] if labels[other, unit] >= 0)]
        np.testing.assert_allclose(found[number, unit], moves[labels[others, unit]].mean(axis=0), rtol=1e-5)
    together = carried(known, np.where(labels < 0, -1, 4).astype(np.int32), moves)
    np.testing.assert_allclose(together[0, 0], moves[4], rtol=1e-6)
