"""Refinement: a slow twin of one round, and the contrast it exists for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine_examples import correlation, recurrent_trace
from hiddenscope.embeddings import refinement
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.refinement import (
    BLOCK,
    Edges,
    Surroundings,
    _hold_slices,
    inter_edges,
    refine,
    refine_nodes,
    slice_mates,
)
from hiddenscope.embeddings.streaming import StreamingSolution, embed_nodes
from hiddenscope.embeddings.unit_rows import UnitRows, unit_rows


@pytest.fixture(scope="module")
def solution() -> StreamingSolution:
    return embed_nodes(normalize(recurrent_trace(25, 20, 6, 10)), n_landmark=150, seed=3)


def shared_neighbors(rows: UnitRows, positions: np.ndarray, count: int) -> float:  # type: ignore[type-arg]
    """Mean share of a slice's nearest slices of the same unit that are nearest in the picture too."""
    shares = []
    for unit in range(rows.n_units):
        here = rows.of(unit)
        near = []
        for points in (rows.values[here], positions[here]):
            distances = np.linalg.norm(points[:, None] - points[None], axis=2)
            np.fill_diagonal(distances, np.inf)
            near.append(np.argsort(distances, axis=1)[:, :count])
        shares += [len(np.intersect1d(one, other)) / count for one, other in zip(*near, strict=True)]
    return float(np.mean(shares))


def test_refinement_restores_neighbors_and_keeps_the_picture(solution: StreamingSolution) -> None:
    rows = solution.graph.rows
    before, after = (shared_neighbors(rows, positions, 10) for positions in (solution.plain, solution.refined))
    assert after > before + 0.05
    assert correlation(solution.plain, solution.refined) > 0.9


def test_no_epochs_leave_the_nodes_where_they_are(solution: StreamingSolution) -> None:
    rows, landmarks = solution.graph.rows, solution.graph.landmarks
    np.testing.assert_array_equal(refine_nodes(rows, landmarks, solution.plain, epochs=0), solution.plain)


def test_one_round_equals_a_slow_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(normalize(recurrent_trace(2, 3, 4, 6)))
    generator = np.random.default_rng(0)
    anchors = generator.normal(size=(len(rows.values), 2)).astype(np.float32)
    start = anchors + generator.normal(0, 0.1, size=anchors.shape).astype(np.float32)
    edges, mates = inter_edges(rows, None, ranks=(1, 2)), slice_mates(rows)
    found = refine(rows, anchors, edges, mates, epochs=1, start=start, seed=5)
    expected = slow_round(rows, anchors, start, seed=5)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found - start).max() > 1e-3


def slow_round(rows: UnitRows, anchors: np.ndarray, start: np.ndarray, *, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """One damped Jacobi step in float64, written from the formulas of docs/design/engine.md."""
    scale = refinement.SPREAD / anchors.std()
    old, home = start * scale, anchors * scale  # differences are all that counts: no need to center
    units = np.repeat(np.arange(rows.n_units), np.diff(rows.offsets))
    new = old.astype(float).copy()
    edges = []
    for i in range(len(old)):
        same = [j for j in range(len(old)) if units[j] == units[i] and j != i]
        same.sort(key=lambda j: float(np.linalg.norm(rows.values[j].astype(float) - rows.values[i])))
        edges += [(i, j) for j in same[:2]] + [(j, i) for j in same[:2]]
    for i in range(len(old)):
        unit = units[i]
        first, count = int(rows.offsets[unit]), int(rows.offsets[unit + 1] - rows.offsets[unit])
        force, weight = refinement.ANCHOR * (home[i] - old[i]), refinement.ANCHOR
        friends = [j for k, j in edges if k == i]
        for j in friends:
            d = old[j] - old[i]
            force = force + 2 / (1 + d @ d) * d
            weight += 2 / (1 + d @ d)
        for draw in range(refinement.DRAWS[0]):
            counter = (first << 12) + draw + (seed * 1_000_003 << 44)
            d = old[first + splitmix(counter) % count] - old[i]
            force = (
                force - refinement.REPULSION * len(friends) / refinement.DRAWS[0] / ((1e-3 + d @ d) * (1 + d @ d)) * d
            )
        mates = [j for j in range(len(old)) if rows.slices[j] == rows.slices[i] and j != i]
        responses = {j: float(np.linalg.norm(rows.values[j].astype(float) - rows.values[i])) for j in mates}
        ratio = sum(float(np.linalg.norm(old[j] - old[i])) for j in mates) / sum(responses.values())
        for j in mates:
            d = old[j] - old[i]
            length = float(np.sqrt(d @ d + 1e-6))
            pull = refinement.STRESS / len(mates) * (1 - ratio * responses[j] / length)
            weight += refinement.STRESS / len(mates)
            if attracts(rows, i, j):
                pull += refinement.INTRA_ATTRACTION / (1 + d @ d)
                weight += refinement.INTRA_ATTRACTION / (1 + d @ d)
            else:
                pull -= min(2 / ((1e-3 + d @ d) * (1 + d @ d)), 4 / length)
            force = force + pull * d
        new[i] = old[i] + refinement.RATE / (1 + refinement.RATE * weight) * force
    return np.asarray(new / scale)


def attracts(rows: UnitRows, i: int, j: int) -> bool:
    """Whether either is among the two nearest units of the other in their slice."""
    mates = [k for k in range(len(rows.slices)) if rows.slices[k] == rows.slices[i]]

    def near(one: int, other: int) -> bool:
        others = sorted(
            (k for k in mates if k != one), key=lambda k: float(np.linalg.norm(rows.values[k] - rows.values[one]))
        )
        return other in others[:2]

    return near(i, j) or near(j, i)


def splitmix(counter: int) -> int:
    """splitmix64 in whole numbers of Python."""
    mask = 2**64 - 1
    x = counter * 0x9E3779B97F4A7C15 & mask
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return x ^ x >> 31


def test_many_units_keep_their_nearest_mates_when_mates_are_capped() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(3, 60, 5)))
    mates = slice_mates(rows)
    assert mates.mates.shape == (180, 32)
    for row in range(180):
        same = np.flatnonzero((rows.slices == rows.slices[row]) & (np.arange(180) != row))
        apart = np.linalg.norm(rows.values[same] - rows.values[row], axis=1)
        nearest = same[np.argsort(apart)[:2]]
        assert set(nearest) <= set(mates.mates[row][mates.distances[row] < 0])


def test_more_than_three_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="refine=0"):
        embed_nodes(np.random.default_rng(0).normal(size=(9, 3, 4)), n_components=4, inter_knn=3)


def test_fixed_nodes_attract_as_moving_ones_do_and_stay() -> None:
    rows = unit_rows(normalize(recurrent_trace(4, 5, 4, 6)))
    anchors = np.random.default_rng(0).normal(size=(len(rows.values), 3)).astype(np.float32)
    edges, mates = inter_edges(rows, None, ranks=(1, 2)), slice_mates(rows)
    free = refine(rows, anchors, edges, mates, epochs=1)
    elsewhere = Edges(edges.starts, edges.neighbors + np.int32(len(anchors)))
    around = Surroundings(anchors, tuple(np.arange(*ends, dtype=np.int32) for ends in pairwise(rows.offsets)))
    held = refine(rows, anchors, elsewhere, mates, epochs=1, around=around)
    np.testing.assert_array_equal(held, free)
    assert np.abs(refine(rows, anchors, elsewhere, mates, epochs=9, around=around) - free).max() > 1e-3


def test_the_bits_do_not_depend_on_where_arrays_lie_in_memory() -> None:
    """Compiled loops that divide must be vector code at any distance between what they read and what they write."""
    rows = unit_rows(normalize(recurrent_trace(40, 20, 5, 10), dtype=np.float32))
    mates, count = slice_mates(rows), len(rows.values)
    by_mate = np.ascontiguousarray(mates.distances.T)
    positions = [np.random.default_rng(k).normal(0, 3, (count, 3)).astype(np.float32) for k in range(4)]
    room = np.empty((mates.mates.shape[1], 3, BLOCK), np.float32)
    found = set()
    for gap in (0, 4, 16, 64, 4096):
        memory = np.zeros(count + gap + 5 * BLOCK, np.float32)
        meant, force = memory[:count], memory[count + gap :].reshape(5, BLOCK)
        meant[:] = np.abs(mates.distances).sum(axis=1) + np.float32(1e-6)
        forces = []
        for old in positions:
            for start in range(0, count, BLOCK):
                stop = min(start + BLOCK, count)
                _hold_slices(old, start, stop, mates.mates, by_mate, meant, np.float32(0.25), room, force)
                forces.append(force[:4, : stop - start].tobytes())
        found.add(b"".join(forces))
    assert len(found) == 1
