"""Co-clusters: planted blocks are found, what answers to nothing is left out, and labels stay from epoch to epoch."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score

from hiddenscope.analyses.cocluster import (
    COCLUSTER,
    MOST_EPOCHS,
    CoClusters,
    _studied,
    agreement,
    carry_labels,
    choose_count,
    co_cluster,
    edges,
    shown,
    study_co_clusters,
    word_links,
)
from hiddenscope.analyses.expected_response import run_responses
from hiddenscope.analyses.studies import make
from hiddenscope.description import Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

ROWS, COLUMNS = np.repeat(range(4), 30), np.repeat(range(4), 25)


def planted(noise, *, signs, seed=0):
    """Four blocks of ones among noise, shuffled: the matrix, and the block of each row and column."""
    rng = np.random.default_rng(seed)
    matrix = np.kron(np.eye(4), np.ones((30, 25))) + noise * np.abs(rng.normal(size=(120, 100)))
    if signs:
        matrix *= rng.choice([-1, 1], size=matrix.shape)
    rows, columns = rng.permutation(120), rng.permutation(100)
    return matrix[np.ix_(rows, columns)], ROWS[rows], COLUMNS[columns]


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("n_clusters", [4, None])
def test_planted_blocks_are_found_whatever_their_signs_and_counted_right(noise, signs, n_clusters):
    matrix, rows, columns = planted(noise, signs=signs)
    found = co_cluster(matrix, n_clusters=n_clusters)
    assert adjusted_rand_score(rows, found.words) == 1.0
    assert adjusted_rand_score(columns, found.units) == 1.0
    for label in found.labels:
        assert rows[found.words == label][0] == columns[found.units == label][0], "words and units share their label"


@settings(max_examples=20)
@given(st.permutations(range(12)), st.permutations(range(8)))
def test_the_order_of_words_and_units_does_not_matter(words, units):
    matrix = np.kron(np.diag([1.0, -2.0]), np.ones((6, 4))) + 0.05 * np.random.default_rng(0).normal(size=(12, 8))
    before = co_cluster(matrix, n_clusters=2)
    after = co_cluster(matrix[np.ix_(words, units)], n_clusters=2)
    assert agreement(before.words[words], after.words) == 1.0
    assert agreement(before.units[units], after.units) == 1.0


def test_words_and_units_without_any_response_are_unassigned():
    matrix = np.zeros((5, 6))
    matrix[:4, :5] = np.kron(np.eye(2), np.ones((2, 2))).repeat(2, axis=1)[:, :5] + 0.01
    found = co_cluster(matrix, n_clusters=2)
    assert found.words[4] == found.units[5] == -1
    assert (found.words[:4] >= 0).all()
    nothing = co_cluster(np.zeros((3, 2)))
    assert nothing.words.tolist() == [-1] * 3
    assert nothing.labels.size == 0
    assert edges(np.zeros((3, 2)), nothing).shape == (0, 0)


def test_more_clusters_than_words_are_clipped_and_a_vocabulary_of_one_is_one_cluster():
    assert co_cluster([[1.0, -2.0, 0.5]], n_clusters=7).units.tolist() == [0, 0, 0]
    assert co_cluster([[1.0], [2.0]]).words.tolist() == [0, 0]
    assert len(co_cluster(np.eye(3) + 0.1, n_clusters=20).labels) <= 3
    same = co_cluster(np.ones((6, 5)), n_clusters=3)
    assert (same.words >= 0).all(), "words that are all alike"
    with pytest.raises(ValueError, match="at least 1"):
        co_cluster(np.eye(2), n_clusters=0)
    with pytest.raises(ValueError, match="finite"):
        co_cluster([[np.nan]])


def test_the_largest_chip_has_the_first_label():
    found = co_cluster(np.kron(np.eye(2), np.ones((3, 1))) @ np.array([[1, 0, 0, 0], [0, 1, 1, 1]]), n_clusters=2)
    assert np.bincount(found.units).tolist() == [3, 1]


def test_the_count_of_clean_blocks_is_exact():
    for count in range(2, 9):
        assert choose_count(np.kron(np.eye(count), np.ones((5, 7)))) == count


def test_two_equal_matrices_have_equal_clusters():
    matrix = np.random.default_rng(5).normal(size=(40, 30))
    first, second = co_cluster(matrix, n_clusters=6), co_cluster(matrix.copy(), n_clusters=6)
    assert_array_equal(first.words, second.words)
    assert_array_equal(first.units, second.units)


@given(st.permutations(range(5)), st.integers(0, 100))
def test_renamed_clusters_get_their_old_names_back(names, seed):
    rng = np.random.default_rng(seed)
    before = CoClusters(np.r_[np.arange(5), rng.integers(0, 5, 20)], rng.integers(-1, 5, 15))
    renaming = np.array([*names, -1])
    after = carry_labels(before, CoClusters(renaming[before.words], renaming[before.units]))
    assert_array_equal(after.words, before.words)
    assert_array_equal(after.units, before.units)


def test_a_cluster_that_shares_nothing_with_a_former_one_gets_a_name_that_was_not_in_use():
    before = CoClusters(np.array([0, 0, -1, -1]), np.array([0, -1]))
    after = carry_labels(before, CoClusters(np.array([1, 1, 0, 0]), np.array([1, 0])))
    assert after.words.tolist() == [0, 0, 1, 1]
    assert after.units.tolist() == [0, 1]


def test_agreement_asks_only_what_both_assign():
    assert agreement([0, 0, 1, 1, -1], [5, 5, 2, 2, 2]) == 1.0
    assert np.isnan(agreement([-1, 0], [0, -1]))


def test_an_edge_is_the_signed_mean_of_its_block_and_weak_edges_hide_at_a_fifth_of_the_strongest():
    values = np.array([[2.0, 2.0, -1.0], [2.0, 2.0, -1.0], [0.4, 0.4, 0.39]])
    found = CoClusters(np.array([0, 0, 1]), np.array([0, 0, 1]))
    table = edges(values, found)
    assert_allclose(table.values, [[2.0, -1.0], [0.4, 0.39]])
    assert shown(table).tolist() == [[True, True], [True, False]], "exactly a fifth is still drawn"
    assert shown(table, low=0.0, high=0.5).tolist() == [[False, True], [True, True]]
    assert_allclose(edges(-values, found).values, -table.values)
    assert_allclose(word_links(values, found).values[1], [2.0, -1.0])
    assert not shown(np.zeros(3)).any()
    with pytest.raises(ValueError, match="filter"):
        shown([1.0], low=0.5, high=0.1)


UNITS, STEPS, SAMPLES, WORDS = 8, 10, 12, 6


def describe(tokens):
    return of_one_layer(STEPS, UNITS, SAMPLES, layer="gru", kind="GRU", probe=tokens)


def snapshot(epoch, tokens, *, broken=False):
    rng = np.random.default_rng(int(epoch))
    effect = np.kron(np.diag([1.0, -1.0]), np.ones((3, 4))) + 0.1 * rng.normal(size=(WORDS, UNITS))
    states = np.cumsum(np.moveaxis(effect[tokens], (0, 1, 2), (2, 0, 1)), axis=0).astype(np.float32)
    return Snapshot(float(epoch), {"gru": np.full_like(states, np.nan) if broken else states})


def test_the_study_keeps_labels_over_epochs_and_agrees_with_itself_when_made_in_steps(tmp_path):
    tokens = np.random.default_rng(0).integers(0, WORDS, (SAMPLES, STEPS))
    with (
        SnapshotWriter.open(tmp_path / "hiddenscope", describe(tokens)) as writer,
        ResultStore.open(tmp_path / "hiddenscope", writable=True) as store,
    ):
        for epoch in range(3):
            writer.append(snapshot(epoch, tokens))
        run = open_run(tmp_path)
        fresh = make(COCLUSTER, run, "gru", store)
        assert fresh["agreement_units"].values[1:].tolist() == [1.0, 1.0]
        assert np.isnan(fresh["agreement_units"].values[0])
        assert (fresh["unit_cluster"] == fresh["unit_cluster"][0]).all(), "the labels stay"
        assert fresh["silent_units"].values.tolist() == [0.0] * 3
        for epoch in (3, 4):
            writer.append(snapshot(epoch, tokens, broken=epoch == 3))
        run.refresh()
        in_steps = make(COCLUSTER, run, "gru", store)
        writer.finish("finished")
    assert in_steps["epoch"].values.tolist() == [0, 1, 2, 3, 4]
    assert (in_steps["unit_cluster"][3] == -1).all(), "an epoch that is not made of numbers has no clusters"
    assert in_steps["agreement_units"].values[4] == 1.0, "and the next is compared with the last that has"
    (tmp_path / "copy").mkdir()
    with SnapshotWriter.open(tmp_path / "copy" / "hiddenscope", describe(tokens)) as writer:
        for epoch in range(5):
            writer.append(snapshot(epoch, tokens, broken=epoch == 3))
        writer.finish("finished")
    at_once = study_co_clusters(open_run(tmp_path / "copy"), "gru")
    for name in at_once.data_vars:
        xr.testing.assert_equal(at_once[name], in_steps[name])


def test_only_new_epochs_are_read_again(tmp_path, monkeypatch):
    tokens = np.random.default_rng(0).integers(0, WORDS, (SAMPLES, STEPS))
    read = []

    def noting(*arguments, epoch, **options):
        read.append(epoch)
        return run_responses(*arguments, epoch=epoch, **options)

    monkeypatch.setattr("hiddenscope.analyses.cocluster.run_responses", noting)
    with (
        SnapshotWriter.open(tmp_path / "hiddenscope", describe(tokens)) as writer,
        ResultStore.open(tmp_path / "hiddenscope", writable=True) as store,
    ):
        for epoch in range(3):
            writer.append(snapshot(epoch, tokens))
        run = open_run(tmp_path)
        make(COCLUSTER, run, "gru", store)
        read.clear()
        writer.append(snapshot(3, tokens))
        run.refresh()
        make(COCLUSTER, run, "gru", store)
        writer.finish("finished")
    assert read == [3.0]


def test_epochs_that_are_looked_at_stay_so_or_are_left_out_as_a_run_grows():
    former = [0]
    for count in range(2, 400):
        chosen = _studied(count).tolist()
        assert chosen[0] == 0
        assert chosen[-1] == count - 1
        assert len(chosen) <= MOST_EPOCHS + 1
        assert set(chosen[:-1]) <= set(former), "none comes in between that was not looked at when it was the newest"
        former = chosen


def test_a_run_without_events_has_no_co_clusters(tmp_path):
    with SnapshotWriter.open(tmp_path / "hiddenscope", describe(None)) as writer:
        writer.append(snapshot(0, np.zeros((SAMPLES, STEPS), int)))
        writer.finish("finished")
    assert study_co_clusters(open_run(tmp_path), "gru") is None
