"""Real data: shapes that the literature states, splits that do not leak, files that are checked before use."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hiddenscope.errors import MissingExtraError
from hiddenscope.experiments.datasets import watch
from hiddenscope.experiments.datasets.digits import digits_split, load_digits
from hiddenscope.experiments.datasets.sequences import Sequences, hold_out_groups, standardize
from hiddenscope.experiments.datasets.watch import load_watch, watch_split, windows


@pytest.fixture(scope="module")
def watch_data() -> Sequences:
    return load_watch()


def made_up(groups: list[int]) -> Sequences:
    rng = np.random.default_rng(0)
    return Sequences(
        name="made up",
        inputs=rng.normal(3.0, 2.0, (len(groups), 5, 2)).astype(np.float32),
        labels=np.zeros(len(groups), dtype=np.int64),
        label_names=("only",),
        feature_names=("a", "b"),
        groups=np.asarray(groups),
    )


def test_watch_data_has_the_documented_size(watch_data: Sequences) -> None:
    assert watch_data.inputs.shape == (3605, 128, 6)
    assert watch_data.inputs.dtype == np.float32
    assert np.isfinite(watch_data.inputs).all()
    assert watch_data.label_names == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert watch_data.feature_names == ("ax", "ay", "az", "wx", "wy", "wz")
    counts = np.bincount(watch_data.labels)
    assert (counts.min(), counts.max(), len(counts)) == (388, 602, 7)
    assert sorted(set(watch_data.groups.tolist())) == list(range(1, 11))


def test_loading_the_watch_data_does_not_import_seglearn(watch_data: Sequences) -> None:
    assert "seglearn" not in sys.modules


def test_a_changed_watch_file_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (ran,)

    trapped = tmp_path / "watch_dataset.npy"
    np.save(trapped, np.array(Trap(), dtype=object), allow_pickle=True)
    monkeypatch.setattr(watch, "_data_file", lambda: trapped)
    with pytest.raises(ValueError, match=r"not the watch data of seglearn 1\.2\.5.*expected sha256.*got"):
        load_watch()
    assert not ran.exists()
    np.load(trapped, allow_pickle=True)
    assert ran.exists()  # the trap was a real one


def test_a_missing_package_is_reported_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing_found)
    with pytest.raises(MissingExtraError, match=r"pip install 'hiddenscope\[data\]'"):
        load_watch()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 0}, "window must lie in 1"), ({"window": 10**6}, "shortest recording"), ({"stride": 0}, "stride")],
)
def test_impossible_windows_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_watch(**options)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 10))
def test_windows_are_what_a_loop_would_cut(length: int, window: int, stride: int) -> None:
    recording = np.arange(2 * length, dtype=np.float32).reshape(length, 2)
    if window > length:
        return
    expected = [recording[start : start + window] for start in range(0, length - window + 1, stride)]
    assert_array_equal(windows(recording, window=window, stride=stride), expected)


def test_held_out_subjects_never_train(watch_data: Sequences) -> None:
    split = watch_split()
    assert set(split.held_out.groups.tolist()) == {2, 5, 8}
    assert set(split.train.groups.tolist()) == {1, 3, 4, 6, 7, 9, 10}
    assert len(split.train) + len(split.held_out) == len(watch_data)
    assert set(split.held_out.labels.tolist()) == set(range(7))


def test_standardization_looks_at_the_training_part_only() -> None:
    data = made_up([1, 1, 1, 2])
    split = hold_out_groups(data, [2])
    scaled = standardize(split)
    assert_allclose(scaled.train.inputs.mean(axis=(0, 1)), 0, atol=1e-6)
    assert_allclose(scaled.train.inputs.std(axis=(0, 1)), 1, rtol=1e-5)
    train = split.train.inputs.astype(np.float64)
    by_hand = (split.held_out.inputs - train.mean(axis=(0, 1))) / train.std(axis=(0, 1))
    assert_allclose(scaled.held_out.inputs, by_hand, rtol=1e-5, atol=1e-6)


def test_a_constant_feature_is_only_shifted() -> None:
    data = made_up([1, 1, 2])
    data.inputs[:, :, 0] = 7
    scaled = standardize(hold_out_groups(data, [2]))
    assert_array_equal(scaled.held_out.inputs[:, :, 0], 0)


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups \[9\] do not occur in made up; it has \[1, 2\]"):
        hold_out_groups(made_up([1, 2]), [9])
    with pytest.raises(ValueError, match="one side of the split empty"):
        hold_out_groups(made_up([1, 2]), [1, 2])
    with pytest.raises(ValueError, match="one side of the split empty"):
        hold_out_groups(made_up([1, 2]), [])


def test_digits_are_eight_rows_of_eight() -> None:
    data = load_digits()
    assert data.inputs.shape == (1797, 8, 8)
    assert data.inputs.min() == 0
    assert data.inputs.max() == 16
    assert data.label_names == tuple("0123456789")


def test_digit_folds_are_equal_and_stratified() -> None:
    split = digits_split()
    assert len(split.held_out) in (359, 360)
    assert np.bincount(split.held_out.labels).min() >= 34
    assert_array_equal(load_digits(seed=3).groups, load_digits(seed=3).groups)
