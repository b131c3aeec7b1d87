"""The loaders of files that users bring, on small made files of the same format, and spikes that stand in for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from experiment_examples import write_nwb, write_uci
from hiddenscope.experiments.datasets.area2bump import (
    direction_names,
    firing_rates,
    load_area2bump,
    synthetic_reaches,
)
from hiddenscope.experiments.datasets.uci_har import load_uci_har, uci_har_split

h5py = pytest.importorskip("h5py")


def test_the_folder_of_uci_har_is_read_as_it_is_written(tmp_path: Path) -> None:
    written = write_uci(tmp_path)
    split = load_uci_har(tmp_path)
    assert_allclose(split.train.inputs, written["train"], atol=1e-6)
    assert_allclose(split.held_out.inputs, written["test"], atol=1e-6)
    assert split.train.label_names[:2] == ("walking", "walking upstairs")
    assert_array_equal(split.train.labels, np.tile(np.arange(6), 2))
    assert split.train.groups.tolist() == [1] * 6 + [2] * 6
    assert set(split.held_out.groups.tolist()) == {20, 21}
    assert split.train.feature_names[0] == "body_acc_x"
    assert_array_equal(load_uci_har(tmp_path / "UCI HAR Dataset").train.inputs, split.train.inputs)
    standard = uci_har_split(tmp_path)
    assert_allclose(standard.train.inputs.mean(axis=(0, 1)), 0, atol=1e-5)


def test_a_folder_that_is_not_ucis_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected activity_labels\.txt"):
        load_uci_har(tmp_path)
    write_uci(tmp_path)
    root = tmp_path / "UCI HAR Dataset"
    (root / "train" / "y_train.txt").write_text("1\n2\n")
    with pytest.raises(ValueError, match="one row per sequence, got 2 labels"):
        load_uci_har(tmp_path)
    (root / "train" / "y_train.txt").write_text("7\n" * 12)
    with pytest.raises(ValueError, match=r"must lie in 1\.\.6, got up to 7"):
        load_uci_har(tmp_path)
    (root / "train" / "Inertial Signals" / "body_acc_y_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"body_acc_y_train\.txt is missing"):
        load_uci_har(tmp_path)


def test_active_reaches_of_an_nwb_file_become_aligned_rates_with_their_directions(tmp_path: Path) -> None:
    path = tmp_path / "made.nwb"
    made = write_nwb(path)
    split = load_area2bump(path)
    active = ~made["bump"]
    trains = made["split"] == b"train"
    assert_array_equal(split.train.groups, np.flatnonzero(active & trains))
    assert_array_equal(split.held_out.groups, np.flatnonzero(active & ~trains))
    assert_array_equal(split.train.labels, (made["angles"][active & trains] / 45).astype(int))
    assert split.train.inputs.shape[1:] == (100, 6)
    assert split.train.label_names == direction_names() == ("0°", "45°", "90°", "135°", "180°", "225°", "270°", "315°")
    # Kept steps are the 6th, 12th, ... of 600: step 20 is 20 ms after the onset, step 99 is 499 ms after it.
    everything = load_area2bump(path, every_step=1)
    assert_array_equal(split.train.inputs, everything.train.inputs[:, 5::6])
    area = everything.train.inputs.sum(axis=1) / 1000  # spikes of the trial, nearly: little is smoothed out of it
    counts = [
        [np.sum(np.abs(np.array(t) - made["onsets"][i] - 0.15) < 0.16) for t in made["times"]]
        for i in split.train.groups
    ]
    assert_allclose(area, counts, rtol=0.02, atol=0.05)


def test_a_file_that_does_not_tell_its_split_is_split_in_order(tmp_path: Path) -> None:
    write_nwb(tmp_path / "made.nwb", without="split")
    split = load_area2bump(tmp_path / "made.nwb", every_step=60)
    assert split.train.groups.max() < split.held_out.groups.min()
    assert len(split.train) / (len(split.train) + len(split.held_out)) == pytest.approx(0.6, abs=0.03)


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="DANDI 000127"):
        load_area2bump(tmp_path / "none.nwb")
    write_nwb(tmp_path / "made.nwb", without="cond_dir")
    with pytest.raises(ValueError, match="has no cond_dir in intervals/trials"):
        load_area2bump(tmp_path / "made.nwb")
    with h5py.File(tmp_path / "empty.nwb", "w"):
        pass
    with pytest.raises(ValueError, match="holds no units/spike_times"):
        load_area2bump(tmp_path / "empty.nwb")


def test_a_spike_becomes_a_gaussian_of_the_documented_width_at_its_own_time() -> None:
    onset = 5.0
    rates = firing_rates([np.array([onset + 0.2005])], np.array([onset]))[0, :, 0]
    seconds = (np.arange(600) + 0.5) / 1000 - 0.1
    expected = np.exp(-(((seconds - 0.2005) / 0.04) ** 2) / 2) / (0.04 * np.sqrt(2 * np.pi))
    assert_allclose(rates, expected, rtol=2e-3, atol=4e-3)  # cut off at four standard deviations
    outside = firing_rates([np.array([onset - 0.15])], np.array([onset]))[0, :, 0]
    assert outside[0] == outside.max() > 0  # a spike before the window still counts at its beginning


def test_synthetic_reaches_have_the_papers_shape_and_fire_as_documented() -> None:
    split = synthetic_reaches(neurons=40)
    assert split.train.inputs.shape == (115, 100, 40)
    assert split.held_out.inputs.shape == (78, 100, 40)
    assert split.train.name == "synthetic reaches"
    rng = np.random.default_rng(0)
    preferred, baseline = rng.uniform(0, 2 * np.pi, 40), 12 * np.exp(rng.normal(0, 0.5, 40))
    inputs = np.concatenate([split.train.inputs, split.held_out.inputs])
    labels = np.concatenate([split.train.labels, split.held_out.labels])
    # Long before and after the movement, only the baseline fires.
    quiet = inputs[:, :8].mean(axis=(0, 1))
    assert np.corrcoef(quiet, baseline)[0, 1] > 0.97
    assert quiet.mean() == pytest.approx(baseline.mean(), rel=0.05)
    # At the peak, each neuron's first Fourier component over directions points to its preferred direction.
    peak = inputs[:, 50:70].mean(axis=1)
    angle = np.angle(np.exp(2j * np.pi * labels / 8) @ peak)
    assert np.median(np.abs(np.angle(np.exp(1j * (angle - preferred))))) < 0.15
    assert_array_equal(synthetic_reaches(neurons=40).train.inputs, split.train.inputs)
    assert not np.array_equal(synthetic_reaches(neurons=40, seed=1).train.inputs, split.train.inputs)
