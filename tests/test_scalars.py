"""Separability as it is logged equals the analysis, changes nothing, and can stop a training."""

import time

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from hiddenscope.analyses.separability import separability as analysed
from hiddenscope.callbacks.monitor import HiddenStateMonitor
from hiddenscope.callbacks.scalars import memberships, separability, summarize
from hiddenscope.callbacks.session import record
from hiddenscope.run import open_run
from training_examples import LIGHTNINGS_OWN_WARNINGS, Classifier, loaders, trainer


def quietly(test):
    """The test, with Lightning's own warnings let pass."""
    for ignored in LIGHTNINGS_OWN_WARNINGS:
        test = pytest.mark.filterwarnings(ignored)(test)
    return test


def logged(states, labels):
    return separability(torch.from_numpy(states), memberships(labels)).item()


@given(st.integers(0, 2**31), st.integers(2, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_logged_is_what_the_analysis_finds(seed, classes, ends_early):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=15)
    labels[:2] = [0, 1]
    states = (rng.normal(size=(6, 4, 15)) + labels * rng.uniform(0, 2)).astype(np.float32)
    if ends_early:
        states[4:, :, 3] = np.nan
    expected = float(analysed(states[None], labels)["silhouette"][0])
    assert logged(states, labels) == pytest.approx(expected, abs=1e-9)


def test_classes_that_are_all_alone_or_all_the_same_do_not_break_it():
    alone = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert logged(alone, np.arange(5)) == 0
    assert logged(np.zeros((3, 4, 6), np.float32), np.arange(6) % 2) == 0
    assert memberships(np.zeros(5, np.int64)) is None
    assert memberships(None) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_sequence_makes_it_unknown(bad):
    states = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    states[:, :, 2] = bad
    assert np.isnan(logged(states, np.arange(6) % 2))


def test_states_lost_after_a_while_are_no_padding_where_they_are_counted():
    states = torch.rand(6, 4, 6)
    states[3:, :, 2] = torch.nan
    classes = memberships(np.arange(6) % 2)
    for lost_after, expected in ((0, False), (12, True)):
        found = summarize({"a": states}, None, {"a": torch.tensor(lost_after)}, classes)
        assert np.isnan(found["separability"]) == expected


def test_without_two_classes_there_is_no_such_scalar():
    states = {"a": torch.rand(3, 4, 6)}
    names = summarize(states, None, {"a": torch.tensor(0)})
    assert not any("separability" in name for name in names)


def test_the_scalar_without_a_layers_name_is_that_of_the_last_layers_states():
    layers = ("encoder", "decoder", "decoder.c")
    states = {name: torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(k)) for k, name in enumerate(layers)}
    found = summarize(states, None, dict.fromkeys(layers, torch.tensor(0)), memberships(np.arange(6) % 2))
    assert found["separability"] == found["decoder/separability"] != found["decoder.c/separability"]


def test_it_costs_less_than_the_other_scalars_do():
    states = {"lstm": torch.rand(128, 64, 128)}
    classes, nothing = memberships(np.arange(128) % 7), {"lstm": torch.tensor(0)}

    def seconds(*extra):
        spent = []
        for _ in range(15):
            began = time.process_time()
            summarize(states, states, nothing, *extra)
            spent.append(time.process_time() - began)
        return min(spent)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert seconds(classes) < 2 * seconds() + 2e-3
    finally:
        torch.set_num_threads(threads)


def test_a_plain_recording_gives_it(tmp_path):
    torch.manual_seed(0)
    network, probe = nn.GRU(2, 3, batch_first=True), (torch.randn(6, 5, 2), torch.arange(6) % 2)
    with record(network, probe, tmp_path) as recording:
        scalars = recording.snapshot(0)
    trace = open_run(tmp_path).trace()
    (name,) = recording.layers
    assert scalars["separability"] == scalars[f"{name}/separability"]
    assert scalars["separability"] == pytest.approx(float(analysed(trace)["silhouette"][0]), abs=1e-9)


def train(folder, *callbacks, epochs):
    pl.seed_everything(0, verbose=False)
    model = Classifier()
    fitted = trainer(folder, *callbacks, epochs=epochs, enable_checkpointing=len(callbacks) > 1)
    fitted.fit(model, *loaders(48))
    return fitted, model


@quietly
def test_early_stopping_and_checkpoints_can_watch_it_and_the_run_holds_it(tmp_path):
    best = ModelCheckpoint(tmp_path / "best", monitor="hiddenscope/separability", mode="max")
    # A patience of 1 on "must rise by 10" stops at the second look: the monitor was found and obeyed.
    stop = EarlyStopping("hiddenscope/separability", mode="max", min_delta=10, patience=1)
    fitted, _ = train(tmp_path, HiddenStateMonitor(verbose=False, strict=True), best, stop, epochs=6)
    run = open_run(tmp_path)
    found = run.metrics()["hiddenscope/separability"]
    expected = analysed(run.trace())["silhouette"]
    np.testing.assert_allclose(found.to_numpy(), expected.values, atol=1e-9)
    assert fitted.current_epoch < 6
    assert best.best_model_score == pytest.approx(found.iloc[1:].max(), abs=1e-6)


@quietly
def test_a_training_ends_with_the_same_weights_whether_it_is_measured_or_not(tmp_path):
    _, with_it = train(tmp_path / "with", HiddenStateMonitor(verbose=False, strict=True), epochs=2)
    _, without = train(tmp_path / "without", epochs=2)
    for one, other in zip(with_it.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(one, other)
