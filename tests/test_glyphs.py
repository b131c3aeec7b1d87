"""The arithmetic of sentence glyphs, by hand and by what must hold for any states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from hiddenscope.analyses.glyphs import glyph_scale, preserved_ratio, sentence_glyphs

sentences = arrays(np.float64, (5, 6), elements=st.floats(-2, 2, allow_subnormal=False))
CHIPS = np.array([0, 1, 0, 1, 1, 0])


def test_the_worked_example_keeps_three_of_six_and_a_half():
    before, now = np.array([1, -2, 3, 0.5]), np.array([0.5, -3, -1, 2])
    assert preserved_ratio(before, now) == pytest.approx(3 / 6.5)
    glyphs = sentence_glyphs([before, now], np.zeros(4, int))
    assert float(glyphs["preserved"][1, 0]) == pytest.approx(0.4615, abs=5e-5)
    assert float(glyphs["preserved"][0, 0]) == 0
    assert glyphs["positive"].values[:, 0].tolist() == [4.5, 2.5]
    assert glyphs["negative"].values[:, 0].tolist() == [-2.0, -4.0]
    assert glyphs["positive_change"].values[:, 0].tolist() == [4.5, -2.0]
    assert glyphs["link"].values[:, 0].tolist() == [2.5 / 4, -4.0 / 4]


@given(sentences)
def test_what_stays_is_all_kept_what_turns_its_sign_is_lost_and_what_halves_is_half_kept(states):
    state = states[0]
    whole = 1.0 if np.abs(state).sum() > 0 else 0.0
    assert preserved_ratio(state, state) == whole
    assert preserved_ratio(state, -state) == 0
    assert preserved_ratio(state, 3 * state) == whole
    assert preserved_ratio(state, state / 2) == pytest.approx(whole / 2)
    assert preserved_ratio(np.zeros(6), state) == 0


@given(sentences)
def test_sums_agree_with_the_states(states):
    glyphs = sentence_glyphs(states, CHIPS)
    for chip in (0, 1):
        own = states[:, chip == CHIPS]
        at = glyphs.sel(cluster=chip)
        assert_allclose(at["positive"] - at["negative"], np.abs(own).sum(axis=1), atol=1e-12)
        assert_allclose((at["positive_change"] + at["negative_change"]).sum(), own[-1].sum(), atol=1e-12)
    assert (glyphs["preserved"] >= 0).all()
    assert (glyphs["preserved"] <= 1 + 1e-12).all()
    order = np.random.default_rng(0).permutation(6)
    again = sentence_glyphs(states[:, order], CHIPS[order])
    for name in glyphs.data_vars:
        assert_allclose(again[name], glyphs[name], atol=1e-12)


def test_the_scale_covers_every_bar_with_headroom_and_what_was_lost_too():
    glyphs = sentence_glyphs([[2.0, 0.0], [0.1, 0.0]], [0, 0])
    assert glyph_scale(glyphs) == pytest.approx(1.1)
    assert glyph_scale(sentence_glyphs([[0.001]], [0])) == 0.1
    assert glyph_scale(glyphs, sentence_glyphs([[-5.0]], [0])) == pytest.approx(5.5)
    assert glyph_scale() == 0.1


def test_units_without_a_chip_are_left_out_and_bad_input_is_refused():
    glyphs = sentence_glyphs([[1.0, 9.0]], [0, -1])
    assert glyphs["positive"].values.tolist() == [[1.0]]
    assert sentence_glyphs(np.zeros((0, 2)), [0, 0]).sizes == {"step": 0, "cluster": 1}
    with pytest.raises(ValueError, match="one cluster per unit"):
        sentence_glyphs([[1.0]], [0, 1])
    with pytest.raises(ValueError, match="finite"):
        sentence_glyphs([[np.nan]], [0])
