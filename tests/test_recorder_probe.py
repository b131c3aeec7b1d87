"""The probe: what is sampled when nobody says what, and that the training is not asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hiddenscope.callbacks.probe import as_probe, balanced, choose_items, sample_loader
from hiddenscope.errors import RecordingError

X = torch.randn(200, 5, 2, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0] * 150 + [1] * 40 + [2] * 10)


class Items(Dataset[Any]):
    """Hands out single items, and counts how often it is asked."""

    def __init__(self, *, noisy: bool = False) -> None:
        self.noisy, self.asked = noisy, 0

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.asked += 1
        return X[index] + (torch.rand(()) if self.noisy else 0), int(Y[index])


@pytest.mark.parametrize("dataset", [TensorDataset(X, Y), Items()], ids=["labels listed", "labels read"])
def test_classes_are_as_evenly_represented_as_they_can_be(dataset: Any) -> None:
    probe = as_probe(DataLoader(dataset, batch_size=16, shuffle=True), max_samples=60, seed=0)
    assert probe.labels is not None
    assert probe.positions is not None
    assert np.bincount(probe.labels).tolist() == [25, 25, 10]
    assert probe.labels.tolist() == Y[probe.positions].tolist()
    assert probe.inputs is not None
    np.testing.assert_array_equal(probe.inputs, X[probe.positions].numpy())


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 80))
def test_a_balanced_choice_takes_a_class_less_often_only_when_it_is_used_up(labels: list[int], size: int) -> None:
    array = np.array(labels)
    chosen = balanced(array, size)
    assert len(set(chosen.tolist())) == len(chosen) == min(size, len(labels))
    taken, there = (np.bincount(values, minlength=7) for values in (array[chosen], array))
    for one in range(7):
        assert all(taken[one] >= taken[other] - 1 or taken[one] == there[one] for other in range(7))


def test_the_sample_is_the_same_every_time_and_another_for_another_seed() -> None:
    def fingerprint(seed: int, *, noisy: bool = False) -> str:
        return as_probe(
            DataLoader(Items(noisy=noisy), batch_size=8, shuffle=True), max_samples=30, seed=seed
        ).fingerprint

    torch.manual_seed(1)
    first = fingerprint(0), fingerprint(0, noisy=True)
    torch.manual_seed(2)
    assert (fingerprint(0), fingerprint(0, noisy=True)) == first, "also where the data set draws random numbers itself"
    assert fingerprint(1) != first[0]


def test_sampling_draws_from_no_generator_of_the_training() -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Items(noisy=True), batch_size=8, shuffle=True, generator=generator)
    torch.manual_seed(4)
    before = generator.get_state(), torch.get_rng_state()
    sample_loader(loader, max_samples=30, seed=0)
    assert torch.equal(generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_batch_is_taken_whole_and_kept_from_later_changes() -> None:
    x, y = X.clone(), Y.clone()
    probe = as_probe((x, y), max_samples=3, seed=0)
    before = probe.fingerprint
    x.zero_()
    assert probe.fingerprint == before
    assert probe.labels is not None
    assert len(probe.labels) == 200
    assert as_probe((X, Y), max_samples=3, seed=9).fingerprint == before
    assert as_probe((X, Y.flip(0)), max_samples=3, seed=0).fingerprint != before


def test_a_function_a_data_set_and_a_small_loader_are_taken_too() -> None:
    assert as_probe(lambda: X[:4], max_samples=9, seed=0).inputs is not None
    made = as_probe(lambda: DataLoader(TensorDataset(X, Y), batch_size=64), max_samples=10, seed=0)
    assert made.fingerprint == as_probe(TensorDataset(X, Y), max_samples=10, seed=0).fingerprint
    whole = as_probe(DataLoader(TensorDataset(X[:7])), max_samples=10, seed=0)
    assert whole.positions is not None
    assert whole.positions.tolist() == list(range(7))
    assert whole.labels is None


def test_sequences_of_different_lengths_are_collated_as_the_loader_does_it() -> None:
    ragged = [(X[i, : 1 + i % 5], int(Y[i])) for i in range(50)]

    def pad(items: Any) -> Any:
        sequences, labels = zip(*items, strict=True)
        return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True), torch.tensor(labels)

    loader: Any = DataLoader(ragged, batch_size=4, collate_fn=pad)  # type: ignore[arg-type]
    probe = as_probe(loader, max_samples=20, seed=0)
    assert len(probe.batches) == 1
    assert probe.batches[0][0].shape == (20, 5, 2)
    alone: Any = DataLoader([(sequence, 1) for sequence, _ in ragged], batch_size=1)  # type: ignore[arg-type]
    assert len(as_probe(alone, max_samples=20, seed=0).batches) == 20


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return zip(X, Y, strict=True)


class Once(Stream):
    """Can be read only once."""

    def __next__(self) -> Any:
        raise StopIteration

    def __iter__(self) -> Any:
        return self


def test_a_stream_gives_its_first_sequences_unless_it_can_be_read_only_once() -> None:
    probe = as_probe(DataLoader(Stream(), batch_size=8), max_samples=20, seed=0)
    assert probe.inputs is not None
    np.testing.assert_array_equal(probe.inputs, X[:20].numpy())
    with pytest.raises(RecordingError, match="read only once"):
        as_probe(DataLoader(Once(), batch_size=8), max_samples=20, seed=0)
    with pytest.raises(RecordingError, match="read only once"):
        as_probe(iter([X]), max_samples=20, seed=0)


@pytest.mark.parametrize("source", [3, None, torch.nn.Linear(1, 1)])
def test_what_is_no_probe_is_refused(source: Any) -> None:
    with pytest.raises(RecordingError, match="probe= needs a batch"):
        as_probe(source, max_samples=2, seed=0)


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(RecordingError, match="is empty"):
        as_probe(DataLoader(TensorDataset(X[:0])), max_samples=2, seed=0)


def test_reading_labels_item_by_item_is_bounded() -> None:
    class Long(Items):
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return super().__getitem__(index % 200)

    data = Long()
    assert len(choose_items(data, max_samples=16, seed=0)) == 16
    assert data.asked <= 1025
