"""The phase that is logged live says what the last entropies did, and seldom more."""

import itertools
import math

import numpy as np
import pytest

from hiddenscope.callbacks.phase import _LEAST, WINDOW, PhaseWatch, phase_of


def test_rising_is_processing_falling_is_compression_and_standing_is_neither():
    rise = list(np.linspace(0.0, 2.0, 12))
    assert phase_of(rise) == 1.0
    assert phase_of(rise[::-1]) == -1.0
    assert phase_of([1.0] * 12) == 0.0
    assert phase_of([*rise[::-1], *rise]) == 1.0


@pytest.mark.parametrize("values", [[], [1.0] * 3, [*np.linspace(0, 1, 9), math.nan]])
def test_few_or_unknown_records_claim_nothing(values):
    assert phase_of(list(values)) == 0.0


def test_the_threshold_is_that_of_kendalls_test_at_one_in_a_hundred():
    counts = np.array([1])  # permutations by their number of inversions, for 1, 2, … records
    for size in range(2, WINDOW + 1):
        counts = np.convolve(counts, np.ones(size, dtype=np.int64))
    scores = WINDOW * (WINDOW - 1) // 2 - 2 * np.arange(len(counts))
    share = counts / math.factorial(WINDOW)
    assert 0.005 < share[np.abs(scores) >= _LEAST].sum() <= 0.01
    assert share[np.abs(scores) >= _LEAST - 2].sum() > 0.01


def test_every_layer_is_watched_and_looks_that_are_not_kept_do_not_count():
    watch = PhaseWatch()
    for value in np.linspace(0, 1, WINDOW - 1):
        for _ in itertools.repeat(None, 3):
            watch.after({"a/entropy": 5.0, "b/entropy": 5.0}, keep=False)
        found = watch.after({"a/entropy": value, "b/entropy": -value, "b.c/entropy": value, "a/change": 1.0}, keep=True)
        assert set(found.values()) == {0.0}
    found = watch.after({"a/entropy": 2.0, "b/entropy": -2.0, "b.c/entropy": 2.0}, keep=False)
    assert found == {"a/phase": 1.0, "b/phase": -1.0, "b.c/phase": 1.0, "phase": -1.0}
