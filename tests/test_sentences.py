"""Typed sentences: cut as people expect, and answered by the rebuilt layer as by the model itself."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hiddenscope.analyses.sentences import replay_error, sentence_states, token_inputs, tokenize
from text_examples import NAMES, Reader, record_reader, tokens


def test_a_sentence_is_cut_into_words_in_lower_case_and_marks_that_are_known():
    found = tokenize("NOT a very Good film - unseen.", NAMES)
    assert [name for name, _ in found] == ["not", "a", "very", "good", "film", "unseen", "."]
    assert [code for _, code in found] == [6, 2, 7, 3, 5, 1, 11]
    assert tokenize("unseen!", ["seen"]) == [("unseen", -1)]
    assert tokenize("don't", ["don't", "don"]) == [("don't", 0)]
    assert tokenize("", NAMES) == tokenize("bad", [])[1:] == []


def test_a_vocabulary_of_characters_cuts_into_characters():
    assert tokenize("To", ["t", "o", "T"]) == [("T", 2), ("o", 1)]
    assert tokenize("a b", ["a", " ", "b", "<unk>"]) == [("a", 0), (" ", 1), ("b", 2)]


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}])
def test_a_sentence_gets_the_states_that_the_model_itself_would_have(tmp_path, kind, options):
    run, _ = record_reader(tmp_path, kind=kind, record=("h", "c", "inputs"), epochs=2, **options)
    sentence = [3, 6, 9, 3, 2]
    torch.manual_seed(0)
    model = Reader(kind, **options)  # as it was when the first epoch was recorded
    with torch.no_grad():
        expected = model.rnn(model.embedding(torch.tensor([sentence])))[0][0].numpy()
    top = "rnn.l1" if options else "rnn"
    for layer in run.layers:
        if layer.endswith("inputs"):
            continue
        inputs = token_inputs(run, layer, epoch=0)
        assert inputs.spread < 1e-6
        assert_allclose(inputs.vectors[2:], model.embedding.weight.detach().numpy()[2:], atol=1e-6)
        states = sentence_states(run, layer, inputs.vectors[sentence], epoch=0)
        if layer == top:
            assert_allclose(states, expected, atol=1e-6)
        assert replay_error(run, layer, epoch=0) < 1e-5
        assert replay_error(run, layer) < 1e-5
        other = token_inputs(run, layer, epoch=1).vectors
        assert np.abs(other[2:] - inputs.vectors[2:]).max() > 1e-3, "the embedding learns too"


def test_what_no_run_recorded_is_not_made_up(tmp_path):
    run, _ = record_reader(tmp_path, record=("h",))
    assert token_inputs(run, "rnn") is None
    assert replay_error(run, "rnn") is None
    with pytest.raises(ValueError, match="inputs of shape"):
        sentence_states(run, "rnn", np.zeros((2, 3)))
    assert sentence_states(run, "rnn", np.zeros((0, 5))).shape == (0, 7)


def test_tokens_that_the_probe_does_not_hold_have_no_vector(tmp_path):
    run, _ = record_reader(tmp_path, tokens_=tokens().clamp(max=6))
    vectors = token_inputs(run, "rnn").vectors
    assert np.isfinite(vectors[1:7]).all()
    assert np.isnan(vectors[7:]).all()
    assert np.isnan(vectors[0]).all(), "padding"


def test_a_layer_that_is_fed_with_more_than_the_token_is_found_out(tmp_path):
    run, _ = record_reader(tmp_path, shift=True)
    assert token_inputs(run, "rnn").spread > 0.1
    assert replay_error(run, "rnn") > 0.01
