"""The model and data of the demo: what it computes, that it learns, and that it is the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.testing import assert_array_equal

from hiddenscope.experiments.datasets.digits import digits_split
from hiddenscope.experiments.datasets.sequences import Split
from hiddenscope.experiments.har import SequenceClassifier, SequenceData, probe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Split:
    return digits_split()


def trained(split: Split, *, epochs: int, seed: int) -> tuple[SequenceClassifier, dict[str, float]]:
    torch.manual_seed(seed)
    model = SequenceClassifier(8, 10)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, SequenceData(split, seed=seed))
    return model, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_logits_read_the_mean_of_the_hidden_states_over_time() -> None:
    torch.manual_seed(0)
    model = SequenceClassifier(3, 4, hidden_size=5)
    sequences = torch.randn(2, 7, 3)
    state = (torch.zeros(2, 5), torch.zeros(2, 5))
    cell = torch.nn.LSTMCell(3, 5)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in model.lstm.state_dict().items()})
    total = torch.zeros(2, 5)
    for step in range(7):
        state = cell(sequences[:, step], state)
        total = total + state[0]
    expected = total / 7 @ model.readout.weight.T + model.readout.bias
    torch.testing.assert_close(model(sequences), expected)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*treespec.*")
def test_the_model_learns_digits_and_logs_what_the_page_shows(digits: Split) -> None:
    _, before = trained(digits, epochs=1, seed=0)
    _, after = trained(digits, epochs=15, seed=0)
    assert set(after) == {"train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert before["val_accuracy"] < 0.6
    assert after["val_accuracy"] > 0.85
    assert after["val_loss"] < before["val_loss"]


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*treespec.*")
def test_a_seed_fixes_every_weight(digits: Split) -> None:
    first, second, other = (trained(digits, epochs=1, seed=seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_shuffling_is_seeded_and_leaves_the_global_generator_alone(digits: Split) -> None:
    before = torch.get_rng_state()
    orders = [torch.cat([labels for _, labels in SequenceData(digits, seed=5).train_dataloader()]) for _ in range(2)]
    assert torch.equal(*orders)
    assert not torch.equal(orders[0], torch.from_numpy(digits.train.labels))
    held_out = torch.cat([labels for _, labels in SequenceData(digits).val_dataloader()])
    assert torch.equal(held_out, torch.from_numpy(digits.held_out.labels))
    assert torch.equal(before, torch.get_rng_state())


def test_the_probe_has_as_many_sequences_of_each_class_and_they_are_the_data_s_own(digits: Split) -> None:
    inputs, labels = probe(digits.held_out, per_class=3)
    assert_array_equal(labels, np.repeat(np.arange(10), 3))
    for sequence, label in zip(inputs.numpy(), labels.numpy(), strict=True):
        (found,) = np.flatnonzero((digits.held_out.inputs == sequence).all(axis=(1, 2)))
        assert digits.held_out.labels[found] == label
    again, _ = probe(digits.held_out, per_class=3)
    assert torch.equal(inputs, again)


def test_a_probe_that_asks_for_too_much_is_refused(digits: Split) -> None:
    with pytest.raises(ValueError, match=r"class 0 of digits has 3\d sequences, 50 were asked for"):
        probe(digits.held_out, per_class=50)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_default_demo_recognizes_the_exercises_of_subjects_it_never_saw(tmp_path: object) -> None:
    from pathlib import Path

    from hiddenscope.experiments.datasets.watch import watch_split
    from hiddenscope.experiments.demo import EPOCHS, train

    result = train(watch_split(), epochs=EPOCHS["watch"], logdir=Path(str(tmp_path)), progress=False)
    assert 0.64 <= result.accuracy <= 0.82
