"""The pictures of RNNVis: what is drawn is what is known, nothing lies upon another, and nothing to show is said."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hiddenscope.analyses.cocluster import CoClusters, co_cluster, edges, shown
from hiddenscope.analyses.expected_response import QUANTILES
from hiddenscope.analyses.glyphs import sentence_glyphs
from hiddenscope.dashboard.figures.rnnvis import NEGATIVE, POSITIVE, rnnvis
from hiddenscope.dashboard.figures.rnnvis_detail import co_cluster_agreement, unit_boxes, word_distributions
from hiddenscope.dashboard.figures.rnnvis_layout import chip_order, draw_all, extents, pack
from hiddenscope.dashboard.figures.rnnvis_sentence import MOST_STEPS, sentence_figure


def responses(values, names=None, counts=None):
    values = np.asarray(values, dtype=np.float32)
    words, units = values.shape
    band = np.stack([values + shift for shift in (-0.2, -0.1, 0.1, 0.2)])
    return xr.Dataset(
        {
            "response": (("word", "unit"), values),
            "band": (("quantile", "word", "unit"), band),
            "count": ("word", np.full(words, 9) if counts is None else counts),
        },
        coords={
            "word": np.arange(words),
            "unit": np.arange(units),
            "quantile": list(QUANTILES),
            "name": ("word", names or [f"word{i}" for i in range(words)]),
        },
    )


def texts(figure):
    return " ".join(str(annotation.text) for annotation in figure.layout.annotations)


BLOCKS = np.kron(np.array([[1.0, 0.1], [-0.1, -0.5]]), np.ones((3, 4)))
FOUND = CoClusters(np.repeat([0, 1], 3), np.repeat([0, 1], 4))


def overlapping(centers, halves):
    apart = (np.abs(centers[:, None] - centers[None]) >= halves[:, None] + halves[None] - 1e-9).any(axis=2)
    np.fill_diagonal(apart, True)
    return int((~apart).sum())


@settings(max_examples=30)
@given(st.lists(st.text("abcdefghij", min_size=1, max_size=25), max_size=60), st.integers(0, 99))
def test_no_word_lies_upon_another_and_the_largest_is_in_the_middle_line(names, seed):
    fonts = np.random.default_rng(seed).uniform(10, 17, len(names))
    places = pack(names, fonts)
    assert overlapping(places, extents(names, fonts)) == 0
    if names:
        assert places[np.argmax(fonts), 1] == 0


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 600), st.integers(1, 20), st.integers(0, 99))
def test_chips_and_clouds_of_any_size_stand_apart_inside_the_canvas(words, units, clusters, seed):
    rng = np.random.default_rng(seed)
    word_clusters, unit_clusters = rng.integers(-1, clusters, words), rng.integers(-1, clusters, units)
    drawing = draw_all([f"w{i}" for i in range(words)], rng.normal(size=words), word_clusters, unit_clusters)
    boxes = [*drawing.chips.values(), *drawing.clouds.values()]
    centers = np.array([(box.x, box.y) for box in boxes]).reshape(-1, 2)
    halves = np.array([(box.half_width, box.half_height) for box in boxes]).reshape(-1, 2)
    chips = len(drawing.chips)
    assert overlapping(centers[:chips], halves[:chips]) == 0
    assert overlapping(centers[:, :], np.vstack([halves[:chips], halves[chips:] * [0.9, 1]])) == 0
    assert (centers - halves >= -1e-9).all()
    assert (centers + halves <= [drawing.width, drawing.height]).all()
    for label, box in drawing.chips.items():
        own = drawing.units[unit_clusters == label]
        assert ((own > [box.left, box.top]) & (own < [box.right, box.bottom])).all()
        assert len(np.unique(own, axis=0)) == len(own)
    assert np.isnan(drawing.units[unit_clusters < 0]).all()
    assert np.isnan(drawing.words[word_clusters < 0]).all()


def test_the_picture_has_the_edges_that_pass_the_filter_in_the_color_of_their_sign():
    table = edges(BLOCKS, FOUND)
    for low, high in ((0.2, 1.0), (0.0, 1.0), (0.0, 0.3)):
        figure = rnnvis(responses(BLOCKS), FOUND, low=low, high=high)
        drawn = {
            (trace.meta["word_cluster"], trace.meta["unit_cluster"]): trace
            for trace in figure.data
            if trace.meta and trace.meta["kind"] == "edge"
        }
        visible = shown(table, low=low, high=high)
        assert set(drawn) == {tuple(place) for place in np.argwhere(visible).tolist()}
        for (row, column), trace in drawn.items():
            value = float(table[row, column])
            assert trace.line.color == (POSITIVE if value > 0 else NEGATIVE)
            assert_allclose(trace.line.width, max(1.0, 12 * abs(value) / np.abs(table).max()))


def test_the_page_is_told_all_that_it_paints_under_the_pointer():
    figure = rnnvis(responses(BLOCKS, ["a", "<b>", "c", "d", "e", "f"]), FOUND, picked=["5"], dark=True)
    meta = figure.layout.meta
    assert_allclose(np.array(meta["responses"]) * meta["scale"], BLOCKS, atol=meta["scale"] / 2 + 1e-6)
    units, words = (figure.data[meta["traces"][kind]] for kind in ("units", "words"))
    assert list(units.customdata) == [str(unit) for unit in range(8)]
    assert list(units.marker.line.width) == [2.0 if unit == 5 else 0.0 for unit in range(8)]
    assert words.text[1] == "&lt;b&gt;", "a token is no markup"
    assert words.customdata is None, "a click on a word picks no unit"
    links = np.array(meta["links"])
    assert_allclose(links[0] / links[3], [-10, -0.2], rtol=1e-2)


def test_a_picture_of_nothing_says_why():
    assert "tokens or numbers" in texts(rnnvis(None, FOUND))
    none = CoClusters(np.full(2, -1), np.full(3, -1))
    assert "No unit answers" in texts(rnnvis(responses(np.zeros((2, 3))), none))
    with pytest.raises(ValueError, match="clusters of 6 words"):
        rnnvis(responses(np.ones((2, 3))), FOUND)
    one = responses([[0.5]])
    assert rnnvis(one, co_cluster(one["response"].values)).layout.meta["names"] == ["word0"]


def test_a_sentence_has_one_bar_per_chip_and_word_that_ends_where_its_sums_do():
    rng = np.random.default_rng(0)
    states = xr.DataArray(rng.normal(size=(4, 8)), dims=("step", "unit"), coords={"unit": np.arange(8)})
    figure = sentence_figure(states, list("abcd"), FOUND.units, scale=2.0)
    glyphs = sentence_glyphs(states.values, FOUND.units)
    bars = next(trace for trace in figure.data if trace.name == "state")
    corners = np.array(bars.y).reshape(2, 4, 6)  # chips by size, words, corners and a gap
    tall = corners[:, :, 2] - corners[:, :, 0]
    assert_allclose(tall, ((glyphs["positive"] - glyphs["negative"]) / glyphs["size"] / 2.0 * 21).values.T, atol=1e-9)
    meta = figure.layout.meta
    assert_allclose(np.array(meta["states"]) * meta["scale"], states, atol=meta["scale"])
    assert np.shape(meta["links"]) == (4, 2)
    assert len(figure.layout.shapes) == meta["shapes"] + 2
    assert figure.layout.annotations[meta["word_annotations"] + 3].text == "d"
    kept = [trace for trace in figure.data if str(trace.name).startswith("kept")]
    assert sum(np.isfinite(np.array(trace.y, dtype=float)).sum() for trace in kept) == 2 * 3 * 5


def test_a_long_sentence_is_cut_and_says_so_and_none_invites_to_type():
    states = xr.DataArray(np.ones((MOST_STEPS + 5, 8)), dims=("step", "unit"), coords={"unit": np.arange(8)})
    figure = sentence_figure(states, ["x"] * (MOST_STEPS + 5), FOUND.units, dark=True)
    assert f"the first {MOST_STEPS} of {MOST_STEPS + 5}" in texts(figure)
    assert "Type a sentence" in texts(sentence_figure(None, [], FOUND.units))
    assert "because" in texts(sentence_figure(None, [], FOUND.units, note="because"))
    one = sentence_figure(states[:1], ["x"], FOUND.units)
    assert np.isfinite(one.layout.height)


def test_a_distribution_orders_the_units_by_the_first_word_and_draws_both_bands():
    values = np.array([[0.1, 0.9, -0.5], [1.0, 0.0, 2.0]])
    figure = word_distributions(responses(values, counts=[3, 9]), [0, 1])
    lines = [trace for trace in figure.data if trace.showlegend is not False]
    assert_allclose(lines[0].y, [0.9, 0.1, -0.5], atol=1e-6)
    assert_allclose(lines[1].y, [0.0, 1.0, 2.0], atol=1e-6)
    assert list(lines[0].customdata) == ["1", "0", "2"]
    assert "rare" in lines[0].name
    bands = [trace for trace in figure.data if trace.showlegend is False]
    assert len(bands) == 4
    assert_allclose(np.array(bands[0].y)[:3], np.array([0.9, 0.1, -0.5]) + 0.2, atol=1e-6)
    many = word_distributions(responses(np.random.default_rng(0).normal(size=(1, 900))), [0])
    assert len(many.data[-1].y) == 200
    assert "Click a word" in texts(word_distributions(responses(values), [77]))
    assert "No words" in texts(word_distributions(None, [0]))
    actual = xr.DataArray([1.0, 2.0, 3.0], dims="unit")
    assert_allclose(word_distributions(responses(values), [0], actual=actual).data[-1].y, [2.0, 1.0, 3.0])


def test_boxes_show_the_strongest_words_of_each_sign_with_their_quantiles():
    values = np.array([[0.5], [0.9], [-0.3], [0.0], [0.7], [0.8], [0.6]])
    figure = unit_boxes(responses(values), 0)
    positive, means, negative, _ = figure.data
    assert_allclose(means.y, [0.9, 0.8, 0.7, 0.6], atol=1e-6)
    assert_allclose(positive.upperfence, [1.1, 1.0, 0.9, 0.8], atol=1e-6)
    assert_allclose(negative.q1, [-0.4], atol=1e-6)
    assert list(figure.layout.xaxis.ticktext) == ["word1", "word5", "word4", "word6", "word2"]
    assert "Click a unit" in texts(unit_boxes(responses(values), None))
    assert "not in this layer" in texts(unit_boxes(responses(values), "<9>"))
    assert "no word" in texts(unit_boxes(responses(np.zeros((2, 1))), 0))
    assert len(unit_boxes(responses(values[:2]), 0).data) == 2


def test_a_mean_outside_of_its_box_does_not_cost_the_box():
    """Plotly draws a mere line where the line in a box is not in it; a few large updates put a mean there."""
    answers = responses(np.array([[0.9], [-0.8]]))
    quantiles = {0.09: 0.1, 0.25: 0.2, 0.75: 0.5, 0.91: 2.0}
    for row, value in enumerate(quantiles.values()):
        answers["band"].values[row, 0] = value
        answers["band"].values[row, 1] = -list(quantiles.values())[3 - row]
    up, mean_up, down, mean_down = unit_boxes(answers, 0).data
    for box, mean in ((up, mean_up), (down, mean_down)):
        assert (np.array(box.q1) <= box.median).all()
        assert (np.array(box.median) <= box.q3).all()
        assert box.q3[0] - box.q1[0] == pytest.approx(0.3)
        assert abs(mean.y[0]) > max(abs(box.q1[0]), abs(box.q3[0]))


def test_agreement_is_drawn_beside_every_loss_from_the_first_epoch_on():
    study = xr.Dataset(
        {"agreement_units": ("epoch", [np.nan, 0.5]), "agreement_words": ("epoch", [np.nan, -0.2])},
        coords={"epoch": [-1.0, 0.0]},
    )
    metrics = pd.DataFrame({"train_loss": [np.nan, 0.3], "accuracy": [0, 1]}, index=pd.Index([-1.0, 0.0]))
    figure = co_cluster_agreement(study, metrics, epoch=0.0)
    assert [trace.name for trace in figure.data] == ["train_loss", "units stay together", "words stay together"]
    assert list(figure.data[0].x) == [0.0]
    assert figure.layout.yaxis2.range[0] <= -0.2
    one = study.isel(epoch=[0])
    assert np.isfinite(co_cluster_agreement(one, pd.DataFrame()).layout.yaxis2.range[0]), "one epoch has no agreement"
    assert "appear" in texts(co_cluster_agreement(None, metrics))


def test_chips_stand_by_their_size():
    assert chip_order([3, 3, 3, 0, 1, 1, -1, -1, -1, -1]) == [3, 1, 0]
