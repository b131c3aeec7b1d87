"""Expected responses: exact where the law of the states is known, streamed as they are in one piece."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hiddenscope.analyses.expected_response import (
    class_events,
    events_of,
    expected_response,
    run_responses,
    salient_units,
    salient_words,
    stream_responses,
    token_events,
    updates,
    value_events,
)
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

WORDS, UNITS, STEPS, SAMPLES = 5, 4, 12, 9


def steered(rng, words, effect):
    """States that move by the effect of each word and by nothing else, (step, unit, sample)."""
    return np.cumsum(np.moveaxis(effect[words], (0, 1, 2), (2, 0, 1)), axis=0)


def record(folder, states, *, probe=None, token_names=None, labels=None, units=None, steps=None):
    step, unit, sample = states[0].shape
    description = RunDescription(
        layers=(
            LayerDescription(
                "gru", "GRU", np.arange(unit) if units is None else units, np.arange(step) if steps is None else steps
            ),
        ),
        samples=np.arange(sample),
        labels=labels,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
        probe=probe,
        token_names=token_names,
    )
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch, values in enumerate(states):
            writer.append(Snapshot(float(epoch), {"gru": values.astype(np.float32)}))
        writer.finish("finished")
    return open_run(folder)


def test_a_state_that_each_word_moves_by_its_own_step_gives_exactly_these_steps_and_no_band():
    rng = np.random.default_rng(0)
    words = rng.integers(0, WORDS, (SAMPLES, STEPS))
    effect = rng.normal(size=(WORDS, UNITS))
    found = expected_response(steered(rng, words, effect), words)
    assert_allclose(found["response"], effect, atol=1e-6)
    for quantile in found["quantile"].values:
        assert_allclose(found["band"].sel(quantile=quantile), effect, atol=1e-6)
    assert_array_equal(found["count"], np.bincount(words.ravel(), minlength=WORDS))


def test_the_first_step_counts_as_a_move_from_zero():
    found = expected_response(np.array([[[3.0]], [[5.0]]]), [[0, 1]])
    assert found["response"].values.tolist() == [[3.0], [2.0]]


def test_bands_are_the_quantiles_of_the_updates():
    moves = np.random.default_rng(0).permutation(np.arange(101.0))
    found = stream_responses([(moves[:, None, None], np.zeros((1, 101), int))], n_words=1, n_units=1)
    assert found["band"].values[:, 0, 0].tolist() == [9.0, 25.0, 75.0, 91.0]
    assert found["response"].values[0, 0] == 50.0


@given(seed=st.integers(0, 1000), cut=st.integers(1, SAMPLES - 1), longest=st.integers(1, STEPS))
def test_blocks_give_what_one_piece_gives_and_a_loop_too(seed, cut, longest):
    rng = np.random.default_rng(seed)
    words = rng.integers(-1, WORDS, (SAMPLES, STEPS))
    states = rng.normal(size=(STEPS, UNITS, SAMPLES))
    states[longest:, :, 0] = np.nan
    moved = updates(states)
    whole = expected_response(states, words, n_words=WORDS)
    parts = stream_responses(
        [(moved[..., :cut], words[:cut]), (moved[..., cut:], words[cut:])], n_words=WORDS, n_units=UNITS
    )
    assert_allclose(parts["response"], whole["response"], atol=1e-6)
    assert_allclose(parts["band"], whole["band"], atol=1e-6)
    seen = {word: [] for word in range(WORDS)}
    for sample in range(SAMPLES):
        before = np.zeros(UNITS)
        for step in range(STEPS):
            now = states[step, :, sample]
            if np.isfinite(now).all() and words[sample, step] >= 0:
                seen[words[sample, step]].append(now - before)
            before = now
    for word, moves in seen.items():
        assert whole["count"].values[word] == len(moves)
        assert_allclose(whole["response"].values[word], np.mean(moves, axis=0) if moves else 0, atol=1e-6)


def test_a_block_without_any_event_adds_nothing():
    found = stream_responses([(np.ones((3, 2, 1)), np.full((1, 3), -1))], n_words=2, n_units=2)
    assert found["count"].values.tolist() == [0, 0]
    assert (found["response"] == 0).all()


def test_quantiles_from_a_reservoir_come_close_to_those_of_everything():
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(20_000, 1, 1))
    blocks = [(part, np.zeros((1, len(part)), int)) for part in np.split(moves, 40)]
    found = stream_responses(blocks, n_words=1, n_units=1, reservoir=500)
    assert_allclose(found["response"], moves.mean(), atol=1e-6)
    # The error of a quantile of 500 normal draws is about sqrt(q (1 - q) / 500) / density: below 0.08 at 9 percent.
    assert_allclose(found["band"].values[:, 0, 0], np.quantile(moves, [0.09, 0.25, 0.75, 0.91]), atol=4 * 0.08)
    late = stream_responses(
        [(np.r_[np.zeros(500), np.ones(500)][:, None, None], np.zeros((1, 1000), int))],
        n_words=1,
        n_units=1,
        reservoir=100,
    )
    assert late["band"].values[:, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0], "what came late is in the sample too"


def test_reordering_units_and_renaming_words_only_reorders_the_response():
    rng = np.random.default_rng(1)
    words = rng.integers(0, WORDS, (SAMPLES, STEPS))
    states = rng.normal(size=(STEPS, UNITS, SAMPLES))
    units, names = rng.permutation(UNITS), rng.permutation(WORDS)
    before = expected_response(states, words, n_words=WORDS)
    after = expected_response(states[:, units], np.argsort(names)[words], n_words=WORDS)
    assert_allclose(after["response"], before["response"].values[names][:, units], atol=1e-6)
    assert_allclose(after["band"], before["band"].values[:, names][:, :, units], atol=1e-6)


def test_padding_is_left_out_by_its_name_and_where_states_end():
    events = token_events([[1, 2, 0], [2, 0, 0]], ["<pad>", "a", "b"])
    states = np.cumsum(np.ones((3, 1, 2)), axis=0)
    states[1:, :, 1] = np.nan
    found = expected_response(states, events.words, n_words=3)
    assert found["count"].values.tolist() == [0, 1, 2]
    assert token_events([[0, 3]], ["a"]).names == ("a", "token 1", "token 2", "token 3")
    with pytest.raises(ValueError, match="shape"):
        token_events([0.5])


def test_units_that_read_backward_move_from_the_step_after():
    states = np.array([[[1.0], [4.0]], [[3.0], [6.0]], [[np.nan], [np.nan]]])
    found = updates(states, backward=[False, True])
    assert_array_equal(found[:2, 0, 0], [1.0, 2.0])
    assert_array_equal(found[:2, 1, 0], [-2.0, 6.0])


def test_the_last_recorded_step_of_a_unit_that_reads_backward_says_nothing_where_more_follow():
    states = np.array([[[1.0], [4.0]], [[3.0], [6.0]]])
    found = updates(states, backward=[False, True], n_steps=5)
    assert_array_equal(found[:, 0, 0], [1.0, 2.0])
    assert_array_equal(found[:, 1, 0], [-2.0, np.nan])
    assert_array_equal(updates(states, backward=[False, True], n_steps=2)[:, 1, 0], [-2.0, 6.0])


def test_steps_whose_predecessor_was_not_recorded_say_nothing():
    found = updates(np.ones((3, 1, 1)), steps=[0, 2, 3])
    assert_array_equal(found[:, 0, 0], [1.0, np.nan, 0.0])
    assert np.isnan(updates(np.ones((1, 1, 1)), steps=[5])).all()


def test_real_inputs_become_bins_of_each_channel_and_one_hot_inputs_symbols():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20, 30, 2))
    events = value_events(inputs)
    assert events.words.shape == (20, 30, 2)
    assert len(events.names) == 6
    counts = np.bincount(events.words.ravel())
    assert_allclose(counts, 200, atol=1, err_msg="thirds of a channel are equally frequent")
    low = inputs[..., 0][events.words[..., 0] == 0]
    assert low.max() <= np.quantile(inputs[..., 0], 1 / 3) + 1e-12
    symbols = value_events(np.eye(3)[[[0, 2, 1]]])
    assert symbols.kind == "symbol"
    assert symbols.words[0, :, 0].tolist() == [0, 2, 1]
    constant = value_events(np.ones((2, 3, 1)))
    assert constant.names == ("input 0: 1 to 1",)
    gone = value_events([[[np.nan], [1.0], [2.0]]], bins=2)
    assert gone.words[0, :, 0].tolist() == [-1, 0, 1]


def test_a_run_tells_its_words_by_frequency_under_their_names_and_its_units_under_theirs(tmp_path):
    rng = np.random.default_rng(0)
    tokens = np.minimum(rng.geometric(0.4, (SAMPLES, STEPS)), WORDS) - 1
    effect = rng.normal(size=(WORDS, UNITS))
    names = tuple("abcde")
    units = np.array(["forward 0", "forward 1", "forward 2", "forward 3"])
    run = record(tmp_path, [steered(rng, tokens, effect)], probe=tokens, token_names=names, units=units)
    found = run_responses(run, "gru", top=3)
    counts = np.bincount(tokens.ravel(), minlength=WORDS)
    best = np.argsort(-counts, kind="stable")[:3]
    assert found["name"].values.tolist() == [names[code] for code in best]
    assert_allclose(found["response"], effect[best], atol=1e-4)
    assert found["unit"].values.tolist() == units.tolist()
    assert found.attrs["kind"] == "token"


def test_without_inputs_the_classes_are_the_events_and_without_either_there_are_none(tmp_path):
    states = np.random.default_rng(0).normal(size=(STEPS, UNITS, 4))
    run = record(tmp_path / "labels", [states], labels=np.array([0, 1, 1, 0]))
    found = run_responses(run, "gru")
    assert found["name"].values.tolist() == ["class 0", "class 1"]
    both = states[:, :, [0, 3]]
    assert_allclose(found["response"].values[0], both[-1].mean(axis=-1) / STEPS, atol=1e-5)
    assert class_events([1], ["no", "yes"], steps=2).words.tolist() == [[[1], [1]]]
    bare = record(tmp_path / "bare", [states])
    assert events_of(bare, "gru") is None
    assert run_responses(bare, "gru") is None


def test_an_epoch_whose_states_are_not_numbers_has_no_response(tmp_path):
    states = np.full((STEPS, UNITS, SAMPLES), np.nan)
    run = record(tmp_path, [states], probe=np.zeros((SAMPLES, STEPS), int))
    assert run_responses(run, "gru") is None


def test_salient_words_and_units_are_the_extremes_of_each_sign():
    states = np.cumsum(np.array([[2.0, -1.0], [-3.0, 0.0], [1.0, 5.0]]), axis=0)[:, :, None]
    found = expected_response(states, [[0, 1, 2]])
    assert salient_words(found, 0, count=1)["word"].values.tolist() == [0, 1]
    assert salient_words(found, 0)["word"].values.tolist() == [0, 2, 1]
    assert salient_units(found, 0)["unit"].values.tolist() == [0, 1]
    assert salient_units(found, 1)["unit"].values.tolist() == [0]
