"""Separability, the parts of encoder and decoder, and cuts: planted structure is found, and its absence too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.cluster import AgglomerativeClustering
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score

from hiddenscope.analyses.encoder_decoder import attractor, centroids, split_at, steering
from hiddenscope.analyses.segmentation import best_match, in_order_of_appearance, label_steps, segment
from hiddenscope.analyses.separability import (
    MEASURES,
    MOST_STATES,
    agreement,
    cosine_clusters,
    fisher_ratio,
    measures,
    nearest_centroid,
    overtraining,
    separability,
    silhouette,
    single_states,
    training_phase,
)
from hiddenscope.trace import as_trace

CLASSES, MEMBERS, UNITS = 3, 20, 12


def blobs(distance, *, seed=0):
    """Points of three classes whose centers lie at a distance along three axes, noise 1 in all directions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), MEMBERS)
    return rng.normal(size=(len(labels), UNITS)) + distance * np.eye(UNITS)[labels], labels


def slow_silhouette(points, labels):
    found = []
    for i, point in enumerate(points):
        to = [np.linalg.norm(point - other) for other in points]
        means = {}
        for label in set(labels.tolist()):
            own = [to[j] for j in range(len(points)) if labels[j] == label and j != i]
            means[label] = sum(own) / len(own) if own else None
        a = means.pop(labels[i])
        b = min(means.values())
        found.append(0.0 if a is None else (b - a) / max(a, b))
    return sum(found) / len(found)


def test_planted_clusters_appear_as_their_distance_grows():
    found = [measures(*blobs(distance)) for distance in (0, 5, 10, 20, 80)]
    assert abs(found[0]["silhouette"]) < 0.1
    assert abs(found[0]["ari"]) < 0.1
    assert found[0]["nearest_centroid"] < 0.6
    assert found[-1]["silhouette"] > 0.9
    assert found[-1]["ari"] == found[-1]["ami"] == found[-1]["v_measure"] == 1
    assert found[-1]["nearest_centroid"] == 1
    for name in ("silhouette", "fisher_ratio"):
        assert (np.diff([row[name] for row in found]) > 0).all()


def test_random_labels_agree_with_nothing():
    rng = np.random.default_rng(1)
    points, labels = rng.normal(size=(120, 5)), rng.integers(0, 3, size=120)
    found = measures(points, labels)
    for name in ("silhouette", "ari", "ami"):
        assert abs(found[name]) < 0.1
    assert found["nearest_centroid"] < 0.5


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_the_silhouette_agrees_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    points, labels = rng.normal(size=(12, 3)), rng.integers(0, 3, size=12)
    labels[:3] = [0, 1, 2]
    assert silhouette(points, labels) == pytest.approx(slow_silhouette(points, labels))


def test_the_fisher_ratio_is_the_sum_of_the_discriminant_eigenvalues():
    points, labels = blobs(2.0, seed=3)
    lda = LinearDiscriminantAnalysis(solver="eigen").fit(points, labels)
    discriminants = lda.transform(points)
    centers = np.stack([discriminants[labels == k].mean(axis=0) for k in range(CLASSES)])
    within = ((discriminants - centers[labels]) ** 2).sum(axis=0)
    between = MEMBERS * ((centers - discriminants.mean(axis=0)) ** 2).sum(axis=0)
    assert fisher_ratio(points, labels, variance=1.0) == pytest.approx((between / within).sum(), rel=1e-6)


def test_the_fisher_ratio_of_more_dimensions_than_points_is_no_miracle():
    rng = np.random.default_rng(4)
    points, labels = rng.normal(size=(12, 200)), np.arange(12) % 2
    real = rng.normal(size=(12, 200)) + 3 * labels[:, None]
    assert fisher_ratio(points, labels) < 10 < fisher_ratio(real, labels)
    assert fisher_ratio(np.eye(2)[labels], labels) == np.inf
    assert fisher_ratio(np.zeros((12, 3)), labels) == 0
    assert np.isnan(fisher_ratio(points, np.arange(12)))


def test_the_nearest_centroid_leaves_each_point_out():
    points, labels = blobs(1.5, seed=5)
    hits = 0
    for i in range(len(points)):
        rest = np.delete(np.arange(len(points)), i)
        centers = [points[rest][labels[rest] == k].mean(axis=0) for k in range(CLASSES)]
        hits += np.argmin([np.linalg.norm(points[i] - center) for center in centers]) == labels[i]
    assert nearest_centroid(points, labels) == hits / len(points)
    assert nearest_centroid([[0.0], [1.0], [5.0]], [0, 0, 1]) == pytest.approx(2 / 3)


def test_clusters_are_those_of_the_authors_choice():
    points, labels = blobs(6.0, seed=6)
    theirs = AgglomerativeClustering(CLASSES, metric="cosine", linkage="single").fit_predict(points)
    assert adjusted_rand_score(theirs, cosine_clusters(points, CLASSES)) == 1
    assert agreement(points, labels)["ari"] == adjusted_rand_score(labels, theirs)


def test_a_dead_layer_does_not_separate_and_does_not_fail():
    found = measures(np.zeros((9, 4)), np.arange(9) % 3)
    assert found["silhouette"] == 0
    assert found["fisher_ratio"] == 0
    assert found["ari"] == pytest.approx(0, abs=0.5)


def test_one_class_or_a_diverged_epoch_is_unknown_and_no_zero():
    rng = np.random.default_rng(7)
    trace = rng.normal(size=(3, 4, 5, 8))
    assert all(np.isnan(separability(trace, np.zeros(8))[name]).all() for name in MEASURES)
    trace[1, 2, 3, 4] = np.inf
    found = separability(trace, np.arange(8) % 2)
    for name in MEASURES:
        assert np.isnan(found[name]).values.tolist() == [False, True, False]


def test_single_states_tell_apart_paths_that_share_their_center():
    angle = 2 * np.pi * np.arange(40) / 40
    labels = np.arange(8) % 2
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, 8)
    paths = np.zeros((1, 40, 4, 8))
    for sample, (label, phase) in enumerate(zip(labels, phases, strict=True)):  # circles in two orthogonal planes
        paths[0, :, 2 * label, sample] = np.cos(angle + phase)
        paths[0, :, 2 * label + 1, sample] = np.sin(angle + phase)
    by_state = separability(paths, labels, points="states")
    assert by_state["ari"] == by_state["ami"] == by_state["v_measure"] == 1
    assert separability(paths, labels)["ari"] < 0.5
    padded = np.concatenate([paths, paths])
    padded[:, 30:, :, :3] = np.nan
    padded[1, 2, 0, 5] = np.nan  # diverged
    found = separability(padded, labels, points="states")
    assert found["ari"].values[0] == 1
    assert np.isnan(found["ari"].values[1])
    with pytest.raises(ValueError, match="points must be 'means' or 'states'"):
        separability(paths, labels, points="all")


def test_no_more_single_states_are_taken_than_can_be_compared_and_the_same_in_every_epoch():
    values = np.random.default_rng(0).normal(size=(1, 60, 3, 50))
    both = as_trace(np.concatenate([values, values]))
    first, second = single_states(both, np.arange(50))
    assert len(first[0]) == MOST_STATES < 3000
    assert_allclose(first[0], second[0])
    for state, sample in zip(first[0][::100], first[1][::100], strict=True):
        assert (values[0, :, :, sample] == state).all(axis=1).any()


def test_padding_and_early_steps_are_left_out():
    rng = np.random.default_rng(8)
    trace = rng.normal(size=(2, 6, 5, 8))
    longer = np.concatenate([trace, np.full((2, 2, 5, 8), np.nan)], axis=1)
    later = np.concatenate([np.full((2, 2, 5, 8), 9.0), trace], axis=1)
    labels = np.arange(8) % 2
    for other, first in ((longer, 0), (later, 2)):
        found = separability(other, labels, first_step=first)
        for name, expected in separability(trace, labels).items():
            assert_allclose(found[name], expected)


def test_labels_must_be_known_and_fit():
    with pytest.raises(ValueError, match="needs the class of each sample"):
        separability(np.zeros((1, 2, 3, 4)))
    with pytest.raises(ValueError, match="one value for each of 4 samples"):
        separability(np.zeros((1, 2, 3, 4)), [0, 1])


def test_phases_follow_the_written_rule():
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.603, 0.5]
    assert training_phase(values).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3]
    assert training_phase([-1.0, -0.5], window=1).tolist() == [0, 1]  # a rise of a negative value is a rise
    assert training_phase([1.0, np.nan, 1.0], window=1).tolist() == [0, 0, 0]
    assert training_phase([0.0, 0.0, 1.0], window=1).tolist() == [0, 2, 1]
    assert training_phase([1.0, 2.0]).tolist() == [0, 0]
    falling = np.linspace(2, 1, len(values))
    assert overtraining(values, falling).tolist() == [0] * 10 + [1, 1, 2]
    assert not overtraining(values, np.ones(len(values))).any()


def encoder_and_decoder(rate=0.8, steps=30, radius=0.3):
    """A linear system: the encoder moves from 0 to its class's centroid, the decoder circles it."""
    labels = np.repeat([0, 1], 4)
    centers = np.array([[1.0, 0.0], [0.0, 1.0]])[labels]
    shrink = rate ** np.arange(1, steps + 1)
    # A start beyond the other class's centroid: the own one is the nearer only after a known step.
    start = 2 * centers[::-1]
    encoder = centers + shrink[:, None, None] * (start - centers)
    angle = 2 * np.pi * np.arange(40) / 40
    circle = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return encoder, centers + circle[:, None], labels


def test_the_encoder_crosses_to_its_own_cluster_at_the_step_that_the_rate_gives():
    encoder, decoder, labels = encoder_and_decoder()
    assert_allclose(centroids(decoder, labels), [[1, 0], [0, 1]], atol=1e-12)
    found = steering(encoder, decoder, labels)
    # On the way from 2 c' to c the state is c + f (2 c' - c): as far from c as from c' when f |2c' - c| equals
    # |c - c' + f (2 c' - c)|, for orthonormal c and c' when 2 - 6 f = 0.
    expected = int(np.flatnonzero(0.8 ** np.arange(1, 31) < 1 / 3)[0])
    assert found.crossing == expected
    assert (found.median[:expected] > 1).all()
    assert found.ratio[-1].max() < 0.01
    assert (np.diff(found.median[expected:]) < 0).all()


def test_an_encoder_that_goes_elsewhere_never_crosses():
    encoder, decoder, labels = encoder_and_decoder()
    assert steering(np.zeros_like(encoder), decoder, labels).crossing is None


def test_a_decoder_on_one_circle_recurs_exactly_and_spreads_by_its_radius():
    _, decoder, labels = encoder_and_decoder(radius=0.3)
    found = attractor(decoder, labels)
    assert_allclose(found.spread, 0.3)
    assert_allclose(found.recurrence, 0, atol=1e-12)
    assert_allclose(found.separation, np.sqrt(2))
    noisy = decoder + np.random.default_rng(0).normal(size=decoder.shape)
    assert (attractor(noisy, labels).recurrence.mean(axis=0) > 0.05).all()


def test_a_class_with_one_sequence_has_no_recurrence_but_a_spread():
    _, decoder, _ = encoder_and_decoder()
    found = attractor(decoder[:, :5], np.array([0, 0, 0, 0, 1]))
    assert np.isnan(found.recurrence[:, 1]).all()
    assert np.isfinite(found.spread).all()


def test_padding_in_paths_is_left_out():
    encoder, decoder, labels = encoder_and_decoder()
    encoder[20:, 0] = np.nan
    decoder[30:, 0] = np.nan
    found = steering(encoder, decoder, labels)
    assert np.isnan(found.ratio[20:, 0]).all()
    assert np.isfinite(found.median).all()
    assert np.isfinite(attractor(decoder, labels).spread).all()


def test_steering_needs_two_classes_and_paths_of_one_space():
    encoder, decoder, labels = encoder_and_decoder()
    with pytest.raises(ValueError, match="at least two classes"):
        steering(encoder, decoder, np.zeros(8))
    with pytest.raises(ValueError, match="same dimensions"):
        steering(encoder[:, :, :1], decoder, labels)
    with pytest.raises(ValueError, match="split must lie"):
        split_at(encoder, 30)


def two_kinds():
    """60 frames of a sine, 60 of a faster one, 60 of the first again; and the truth."""
    t = np.arange(60)
    slow, fast = np.sin(0.2 * t), np.sin(1.3 * t)
    frames = np.concatenate([slow, fast, slow])[:, None]
    return frames * np.sqrt(2), np.repeat([0, 1, 0], 60)


def linear_predictor(frames):
    """Continues a pure sine exactly (x_{t+1} = 2 cos(w) x_t - x_{t-1}), and shows its frequency as its state."""
    x = frames[:, 0]
    inner = x[1:-1]
    twice_cos = float(inner @ (x[2:] + x[:-2]) / (inner @ inner))
    out = [x[-2], x[-1]]
    for _ in range(10):
        out.append(twice_cos * out[-1] - out[-2])
    state = np.array([np.clip(twice_cos, -2, 2), 1.0])
    return np.array(out[2:])[:, None], np.tile(state, (10, 1))


def test_a_sequence_is_cut_where_its_kind_changes_and_kinds_are_recognized():
    frames, truth = two_kinds()
    found = segment(frames, linear_predictor, encoder_steps=10, decoder_steps=10, threshold=0.5)
    for change in (60, 120):
        assert np.abs(found.cuts - change).min() <= 10
    labels = label_steps(found, 2)
    assert labels.shape == truth.shape
    assert adjusted_rand_score(truth, labels) > 0.6
    assert np.nanmax(found.errors[20:60]) < 1e-6 < np.nanmax(found.errors[60:80])
    plain = segment(frames[:60], linear_predictor, encoder_steps=10, decoder_steps=10, threshold=0.5)
    assert plain.cuts.size == 0


def test_steps_without_a_state_take_their_neighbors_label():
    frames, _ = two_kinds()
    found = segment(frames[:60], linear_predictor, encoder_steps=10, decoder_steps=10)
    assert np.isnan(found.states[:10]).all()
    assert set(label_steps(found, 1)) == {0}


def test_a_cut_ends_what_was_predicted_well():
    def predict(frames):
        return np.zeros((4, 1)), np.ones((4, 2))

    frames = np.zeros((20, 1))
    frames[6:] = [[9.0]]
    found = segment(frames, predict, encoder_steps=3, decoder_steps=4)
    assert found.cuts[0] == 6
    assert found.starts[:2].tolist() == [0, 6]
    assert np.isfinite(found.states[3:6]).all()
    assert np.isnan(found.states[6:9]).all()


def test_segments_need_a_window_and_a_prediction_of_its_shape():
    with pytest.raises(ValueError, match="at least 25"):
        segment(np.zeros((30, 1)), linear_predictor)
    with pytest.raises(ValueError, match="prediction of shape"):
        segment(np.ones((90, 1)), lambda frames: (np.zeros((3, 1)), np.zeros((3, 2))))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_renumbering_keeps_the_groups(codes):
    found = in_order_of_appearance(codes)
    assert adjusted_rand_score(codes, found) == 1
    assert found[0] == 0
    assert (np.diff(np.unique(found)) == 1).all()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.permutations(range(4)))
def test_the_best_match_undoes_a_renaming(truth, names):
    assert best_match(np.array(names)[truth], truth).tolist() == truth
