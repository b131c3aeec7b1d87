"""Flows between epochs: motions whose change, alignment and expansion are known, and slow twins."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hiddenscope.analyses.flow import epoch_change, flow_alignment, flow_expansion


def cloud(seed: int = 0, sizes: tuple[int, int, int, int] = (4, 3, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=sizes)


def moved(steps: list[np.ndarray]) -> np.ndarray:
    return np.stack(steps)


def test_change_is_the_distance_per_epoch_that_has_passed() -> None:
    picture = xr.DataArray(cloud(), dims=("epoch", "step", "unit", "component"), coords={"epoch": [-1, 0, 1, 11]})
    change = epoch_change(picture)
    assert isinstance(change, xr.DataArray)
    assert np.isnan(change[0]).all()
    assert_allclose(change[2, 1, 3], np.linalg.norm(picture.values[2, 1, 3] - picture.values[1, 1, 3]))
    assert_allclose(change[3, 1, 3], np.linalg.norm(picture.values[3, 1, 3] - picture.values[2, 1, 3]) / 10)
    assert_array_equal(change.epoch, picture.epoch)


@pytest.mark.parametrize("over", ["unit", "step"])
def test_alignment_is_the_mean_cosine_over_pairs(over: str) -> None:
    picture = cloud()
    found = np.asarray(flow_alignment(picture, over=over))  # type: ignore[arg-type]
    for epoch in range(1, 4):
        flow = picture[epoch] - picture[epoch - 1]
        groups = flow if over == "unit" else flow.transpose(1, 0, 2)
        for place, vectors in enumerate(groups):
            cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors, 2)]
            assert_allclose(found[epoch, place], np.mean(cosines))


@pytest.mark.parametrize("over", ["unit", "step"])
def test_expansion_is_the_mean_cosine_with_the_way_out(over: str) -> None:
    picture = cloud()
    found = np.asarray(flow_expansion(picture, over=over))  # type: ignore[arg-type]
    for epoch in range(1, 4):
        before, flow = picture[epoch - 1], picture[epoch] - picture[epoch - 1]
        if over == "step":
            before, flow = before.transpose(1, 0, 2), flow.transpose(1, 0, 2)
        for place in range(len(before)):
            out = before[place] - before[place].mean(axis=0)
            own = flow[place] - flow[place].mean(axis=0)
            cosines = (out * own).sum(axis=1) / np.linalg.norm(out, axis=1) / np.linalg.norm(own, axis=1)
            assert_allclose(found[epoch, place], cosines.mean())


def test_a_drift_a_growth_and_a_shrinkage_are_told_apart() -> None:
    start = cloud(sizes=(1, 2, 5, 3))[0]
    picture = moved([start, start + 1.0, 3 * (start + 1.0), 0.5 * (start + 1.0)])
    centered = np.asarray(flow_expansion(picture))
    aligned = np.asarray(flow_alignment(picture))
    assert_allclose(aligned[1], 1)
    assert np.isnan(centered[1]).all()  # less the common motion, nothing moves
    assert_allclose(centered[2], 1)
    assert_allclose(centered[3], -1)


def test_rotation_is_neither_outward_nor_inward() -> None:
    angles = np.linspace(0, 2 * np.pi, 7)[:-1]
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None]
    turned = np.stack([np.cos(angles + 1e-4), np.sin(angles + 1e-4)], axis=-1)[None]
    assert_allclose(np.asarray(flow_expansion(moved([ring, turned])))[1], 0, atol=1e-3)
    assert_allclose(np.asarray(flow_alignment(moved([ring, turned])))[1], -1 / 5, atol=1e-9)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_place_size_and_turn_of_the_picture_do_not_matter(seed: int, scale: float) -> None:
    picture = cloud(seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    other = scale * picture @ turn + 5
    assert_allclose(flow_alignment(other), flow_alignment(picture), atol=1e-9)
    assert_allclose(flow_expansion(other), flow_expansion(picture), atol=1e-9)
    assert_allclose(epoch_change(other), scale * np.asarray(epoch_change(picture)), rtol=1e-6)


def test_missing_and_resting_nodes_are_left_out() -> None:
    picture = cloud()
    holed = picture.copy()
    holed[:, :, 5] = np.nan
    assert_allclose(flow_alignment(holed), flow_alignment(picture[:, :, :5]))
    assert_allclose(flow_expansion(holed), flow_expansion(picture[:, :, :5]))
    still = np.repeat(picture[:1], 3, axis=0)
    assert np.isnan(flow_alignment(still)).all()
    assert np.isnan(flow_expansion(still)).all()
    assert (np.asarray(epoch_change(still))[1:] == 0).all()
    assert np.isnan(flow_alignment(picture[:1])).all()


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="over must be 'unit' or 'step', got 'epoch'"):
        flow_alignment(cloud(), over="epoch")  # type: ignore[arg-type]
