"""What is picked apart from units, and which nodes of the picture it is: as counted by hand from the states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiddenscope.analyses.activations import activation_thresholds
from hiddenscope.dashboard.focus import (
    NOTHING,
    Focus,
    active_nodes,
    focus_of,
    nodes_of,
    place_of_word,
    words_of,
)
from text_examples import NAMES, record_reader, tokens

odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
)
KEYS = ("by", "run", "sample", "start", "end", "units", "words")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return record_reader(tmp_path_factory.mktemp("run"))[0]


@given(odd | st.fixed_dictionaries(dict.fromkeys(KEYS, odd)))
def test_whatever_a_page_says_is_a_focus_that_can_be_told_again(value):
    found = focus_of(value, "run")
    assert focus_of(found.told("run"), "run") == found
    assert found.by in ("", "word", "sequence")
    if found.period is not None:
        assert 0 <= found.start <= found.end
    assert found == NOTHING or found.words or found.sample is not None


def test_what_is_picked_in_one_run_is_no_sequence_of_another():
    told = Focus("sequence", 3, 2, 5, ("1",), ("good",)).told("first")
    assert focus_of(told, "first") == Focus("sequence", 3, 2, 5, ("1",), ("good",))
    assert focus_of(told, "second") == Focus("word", words=("good",))
    assert focus_of({**told, "run": None}, "second").sample == 3, "an address may leave the run out"


def test_the_nodes_of_a_sequence_are_all_its_highly_active_steps_and_those_of_a_part_lie_within_it(run):
    states = run.trace("rnn", epochs=2.0).isel(epoch=0)
    above = states > activation_thresholds(states)
    for sample in (0, 7):
        own = above.isel(sample=sample).transpose("step", "unit").values
        expected = {(str(unit), step) for step, unit in np.argwhere(own)}
        nodes, said = nodes_of(Focus("sequence", sample), run, "rnn", 2.0)
        assert {(unit, step) for unit, first, last in nodes for step in range(first, last + 1)} == expected
        assert said.startswith(f"sequence {sample} \u00b7 {len({unit for unit, _ in expected})} unit")
        part = active_nodes(run, "rnn", 2.0, sample, (3, 5))
        within = {(unit, step) for unit, step in expected if 3 <= step <= 5}
        assert {(unit, step) for unit, first, last in part for step in range(first, last + 1)} == within


def test_the_nodes_of_a_period_are_those_of_its_units_at_its_steps(run):
    nodes, said = nodes_of(Focus("sequence", 4, 2, 6, ("1", "5", "unknown")), run, "rnn", 2.0)
    assert nodes == [("1", 2, 6), ("5", 2, 6)]
    assert said == "sequence 4 \u00b7 steps 2 to 6 \u00b7 units 1, 5"


def test_the_nodes_of_a_word_are_the_units_that_it_moves_most(run):
    nodes, said = nodes_of(Focus("word", words=("bad", "good")), run, "rnn", 2.0)
    states = run.trace("rnn", epochs=2.0).isel(epoch=0).transpose("sample", "step", "unit").values
    moved = np.diff(states, axis=1, prepend=0)[tokens().numpy() == NAMES.index("good")].mean(axis=0)
    up = [unit for unit in np.argsort(-moved) if moved[unit] > 0][:4]
    down = [unit for unit in np.argsort(moved) if moved[unit] < 0][:4]
    assert {unit for unit, _, _ in nodes} == set(map(str, [*up, *down]))
    assert all(first is None for _, first, _ in nodes)
    assert "raises " + ", ".join(map(str, up)) in said
    assert nodes_of(Focus("word", words=("xyzzy",)), run, "rnn", 2.0)[0] == []


def test_nothing_and_what_the_run_has_not_are_no_nodes(run):
    for focus in (NOTHING, Focus("sequence", 99), Focus("word")):
        assert nodes_of(focus, run, "rnn", 2.0)[0] == []


def test_words_stand_where_the_probe_has_them(run):
    assert words_of(run, "rnn", 0) == list(NAMES[1:10])
    assert words_of(run, "rnn", 99) is None
    sample, step = place_of_word(run, "rnn", ("film", "dull"))
    given_tokens = tokens().numpy()
    assert given_tokens[sample, step] == NAMES.index("dull")
    assert not (given_tokens[:sample] == NAMES.index("dull")).any()
    assert place_of_word(run, "rnn", ("xyzzy",)) is None
    assert place_of_word(run, "rnn", ()) is None
