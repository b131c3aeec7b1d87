"""The live step: follows a training without jumps, forgets nothing that is shown, and stays close to a full fit."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from engine_examples import correlation, recurrent_trace
from hiddenscope.embeddings import live
from hiddenscope.embeddings.live import BANDWIDTH_RATE, LARGEST_MOVE, LivePicture, LiveSettings, advance, begin
from hiddenscope.embeddings.nodes import normalize
from hiddenscope.embeddings.streaming import embed_nodes

SETTINGS = LiveSettings(n_landmark=120)


def normalized(epochs: int = 30, steps: int = 12, units: int = 5) -> npt.NDArray[np.floating]:
    """Shape (epoch, step, unit, sample)."""
    return np.asarray(normalize(recurrent_trace(epochs, steps, units, 10))).reshape(epochs, steps, units, 10)


def follow(nodes: npt.NDArray[np.floating], settings: LiveSettings = SETTINGS, first: int = 3) -> list[LivePicture]:
    """Every picture on the way."""
    pictures = [begin(nodes[:first].reshape(-1, *nodes.shape[2:]), settings)]
    for epoch in nodes[first:]:
        pictures.append(advance(pictures[-1], epoch))
    return pictures


@pytest.fixture(scope="module")
def pictures() -> list[LivePicture]:
    return follow(normalized())


def shared(nodes: npt.NDArray[np.floating], positions: npt.NDArray[np.floating], count: int = 10) -> float:
    """Mean share of the nearest slices of a unit that are nearest in the picture too."""
    shares = []
    for unit in range(nodes.shape[1]):
        near = []
        for points in (nodes[:, unit], positions[:, unit]):
            distances = np.linalg.norm(points[:, None] - points[None], axis=2)
            np.fill_diagonal(distances, np.inf)
            near.append(np.argsort(distances, axis=1)[:, :count])
        shares += [len(np.intersect1d(one, other)) / count for one, other in zip(*near, strict=True)]
    return float(np.mean(shares))


def test_no_shown_node_moves_farther_than_allowed(pictures: list[LivePicture]) -> None:
    moved = 0.0
    for before, after in pairwise(pictures):
        moves = np.linalg.norm(after.shown[: len(before.shown)] - before.shown, axis=2)
        assert moves.max() <= LARGEST_MOVE * before.shown.std() * 1.001
        assert after.report.moved == pytest.approx(np.median(moves) / after.shown.std(), rel=1e-4)
        moved = max(moved, float(moves.max()))
    assert moved > 0


def test_the_target_and_the_shown_picture_are_nearly_as_true_as_a_full_fit(pictures: list[LivePicture]) -> None:
    nodes = normalized().reshape(-1, 5, 10)
    full = shared(nodes, embed_nodes(nodes, n_landmark=120).positions)
    assert shared(nodes, pictures[-1].target) > 0.9 * full
    assert shared(nodes, pictures[-1].shown) > 0.9 * full
    shuffled = np.random.default_rng(0).permutation(pictures[-1].shown)
    assert shared(nodes, shuffled) < 0.3 * full


def test_bandwidth_and_time_follow_at_a_limited_rate(pictures: list[LivePicture]) -> None:
    for before, after in pairwise(pictures):
        assert abs(after.bandwidth / before.bandwidth - 1) <= BANDWIDTH_RATE + 1e-6
        assert abs(after.time - before.time) <= max(1, round(0.12 * before.time))
    assert pictures[-1].bandwidth == pytest.approx(pictures[-1].report.measured_bandwidth, rel=0.2)


def test_a_picture_that_nothing_is_added_to_comes_to_rest() -> None:
    nodes = normalized(10)
    picture = follow(nodes)[-1]
    lags = []
    for _ in range(9):
        picture = advance(picture, np.full((1, 5, 10), np.nan))
        lags.append(np.nansum((picture.shown - picture.target) ** 2))
    assert picture.shown.shape[0] == 129
    assert np.isnan(picture.shown[120:]).all()
    assert 0 < lags[-1] < 0.01 * lags[0]


def test_an_old_picture_is_not_changed_by_advancing_it() -> None:
    nodes = normalized(6)
    picture = follow(nodes[:5])[-1]
    copies = {
        field.name: np.array(getattr(picture, field.name))
        for field in dataclasses.fields(picture)
        if isinstance(getattr(picture, field.name), np.ndarray)
    }
    one, other = advance(picture, nodes[5]), advance(picture, nodes[5])
    np.testing.assert_array_equal(one.shown, other.shown)
    for name, copy in copies.items():
        np.testing.assert_array_equal(getattr(picture, name), copy)


def test_a_history_beyond_the_sample_stays_true_to_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REFINED_NODES", 600)
    nodes = normalized(30)
    picture = follow(nodes, dataclasses.replace(SETTINGS, max_slices=120))[-1]
    assert len(picture.sample) == 120
    np.testing.assert_array_equal(picture.sample[-12:], np.arange(348, 360))
    assert picture.shown.shape == (360, 5, 3)
    assert np.isfinite(picture.shown).all()
    flat = nodes.reshape(-1, 5, 10)
    full = shared(flat, embed_nodes(flat, n_landmark=120).positions)
    assert shared(flat, picture.shown) > 0.9 * full
    assert shared(flat, np.random.default_rng(0).permutation(picture.shown)) < 0.3 * full


def test_every_slice_has_its_turn_to_be_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REFINED_NODES", 600)
    assert len(live._active(120, 12, 5, 1)) == 120
    turns = [live._active(1212, 12, 5, steps) for steps in range(40)]
    for turn in turns:
        assert len(np.unique(turn)) == len(turn) < 135
        np.testing.assert_array_equal(turn[-12:], np.arange(1200, 1212))
    assert len(np.unique(np.concatenate(turns))) == 1212


def test_a_history_longer_than_the_sample_can_be_begun_with() -> None:
    nodes = normalized(30).reshape(-1, 5, 10)
    nodes[7, 2] = np.nan
    picture = begin(nodes, dataclasses.replace(SETTINGS, max_slices=100))
    np.testing.assert_array_equal(picture.shown, embed_nodes(nodes, n_landmark=120, seed=0).positions)
    grown = advance(picture, nodes[:12])
    assert correlation(np.delete(grown.shown[:360].reshape(-1, 3), 37, axis=0), np.delete(picture.shown.reshape(-1, 3), 37, axis=0)) > 0.98  # fmt: skip  # noqa: E501


def test_a_fit_that_was_made_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = normalized(30).reshape(-1, 5, 10)
    solution = embed_nodes(nodes, n_landmark=120)
    monkeypatch.delattr(live, "embed_nodes")
    picture = begin(nodes, dataclasses.replace(SETTINGS, max_slices=100), solution=solution)
    np.testing.assert_array_equal(picture.shown, solution.positions)


def test_missing_steps_and_dead_units_do_not_stop_the_picture() -> None:
    nodes = normalized(8)
    nodes[4:, 9:] = np.nan
    nodes[:, :, 1] = 0
    nodes[6, 2, 3] = np.nan
    picture = follow(nodes)[-1]
    np.testing.assert_array_equal(np.isnan(picture.shown[..., 0]), np.isnan(nodes.reshape(-1, 5, 10)[..., 0]))


def test_from_two_epochs_of_two_steps_of_two_units_on() -> None:
    nodes = np.asarray(normalize(np.random.default_rng(0).normal(size=(6, 2, 2, 2)))).reshape(6, 2, 2, 2)
    picture = follow(nodes, LiveSettings(n_components=2, n_landmark=10), first=2)[-1]
    assert np.isfinite(picture.shown).all()


def test_epochs_of_another_shape_are_refused() -> None:
    nodes = normalized(3)
    picture = begin(nodes.reshape(-1, 5, 10), SETTINGS)
    with pytest.raises(ValueError, match="5 units and 10 samples"):
        advance(picture, nodes[0, :, :4])
