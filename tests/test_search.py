"""The search for similar states agrees with a loop over steps and units, and takes milliseconds."""

import time

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hiddenscope.analyses.search import StateIndex


def slow_matches(active, row, start, end):
    """Every maximal stretch with the highest number of shared units it reaches; from the definition, with sets."""
    samples, steps, units = active.shape
    pattern = {u for u in range(units) if all(active[row, t, u] for t in range(start, end + 1))}
    on = [[{u for u in range(units) if active[s, t, u]} for t in range(steps)] for s in range(samples)]
    found = []
    for s in range(samples):
        shared = [len(on[s][t] & pattern) for t in range(steps)]
        for first in range(steps):
            for last in range(first, steps):
                lowest, highest = min(shared[first : last + 1]), max(shared[first : last + 1])
                grown = (first == 0 or shared[first - 1] < lowest) and (last == steps - 1 or shared[last + 1] < lowest)
                overlaps = s == row and first <= end and last >= start
                if lowest == highest > 0 and grown and not overlaps:
                    inside = set.intersection(*on[s][first : last + 1])
                    found.append((s, first, last, len(inside & pattern), len(inside | pattern)))
    order = sorted(found, key=lambda m: (-m[3], m[4], -(m[2] - m[1]), m[0], m[1]))
    return pattern, order


def index_of(active, **options):
    return StateIndex(active.transpose(1, 2, 0).astype(np.float32), threshold=0.5, **options)


@given(arrays(bool, (3, 7, 4)), st.integers(0, 2), st.integers(0, 6), st.integers(0, 2))
def test_the_search_agrees_with_a_loop(active, row, start, length):
    end = min(6, start + length)
    found = index_of(active).search(sample=row, start=start, end=end, limit=1000)
    pattern, expected = slow_matches(active, row, start, end)
    assert set(found.units.tolist()) == pattern
    columns = ["sample", "start", "end", "intersection", "union"]
    assert [tuple(map(int, match)) for match in found.table[columns].itertuples(index=False)] == expected
    assert (found.table["jaccard"] == found.table["intersection"] / found.table["union"]).all()
    for limit in (1, 2, 5):
        few = index_of(active).search(sample=row, start=start, end=end, limit=limit).table
        assert few.equals(found.table.head(limit)) or (few.empty and found.table.empty)


def test_a_planted_pattern_is_found_at_every_place_it_was_planted():
    rng = np.random.default_rng(0)
    states = rng.random((100, 70, 20)) * 0.3  # (step, unit, sample), below the threshold
    pattern = rng.choice(70, 9, replace=False)  # more than one word of 64 bits
    places = {(2, 10): 6, (5, 40): 6, (5, 80): 5, (17, 0): 8, (19, 95): 5}
    for (sample, start), length in places.items():
        states[start : start + length, pattern, sample] = 0.9
    states[40:46, (set(range(70)) - set(pattern)).pop(), 5] = 0.9  # one more unit is active there
    trace = xr.DataArray(states, dims=("step", "unit", "sample"))
    trace = trace.assign_coords(unit=[f"forward {i}" for i in range(70)], sample=np.arange(100, 120))
    found = StateIndex(trace).search(sample=102, start=10, end=15)
    assert set(found.units) == {f"forward {i}" for i in pattern}
    matches = found.table[["sample", "start", "end", "intersection", "union"]].to_numpy().tolist()
    assert matches == [[117, 0, 7, 9, 9], [105, 80, 84, 9, 9], [119, 95, 99, 9, 9], [105, 40, 45, 9, 10]]


def test_stretches_do_not_run_from_one_sequence_into_the_next():
    active = np.zeros((3, 6, 1), dtype=bool)
    active[0, 4:] = active[1, :2] = active[2, 2] = True
    found = index_of(active).search(sample=2, start=2, end=2).table
    assert found[["sample", "start", "end"]].to_numpy().tolist() == [[0, 4, 5], [1, 0, 1]]


def test_rankings_lengths_edges_and_given_units():
    active = np.zeros((4, 12, 3), dtype=bool)
    active[0, 2:5, :2] = True
    active[1, 2:5, :2] = True
    active[1, 2:5, 2] = True  # shares two, and one more
    active[2, 0:9, 0] = True  # shares one, alone, for long
    active[3, 4, :2] = True  # shares both, for one step
    index = index_of(active)
    first = {
        rank: index.search(sample=0, start=2, end=4, rank=rank).table["sample"].tolist()
        for rank in ("intersection", "jaccard", "length")
    }
    assert first == {"intersection": [3, 1, 2], "jaccard": [3, 1, 2], "length": [2, 1, 3]}
    assert index.search(sample=0, start=2, end=4, min_length=2).table["sample"].tolist() == [1, 2]
    assert index.search(sample=0, start=2, end=4, max_length=3).table["sample"].tolist() == [3, 1]
    assert index.search(sample=0, start=2, end=4, units=[2]).table["sample"].tolist() == [1]
    assert index.active_units(sample=0, start=2, end=4, alone=True).tolist() == [0, 1]
    assert index.active_units(sample=0, start=3, end=4, alone=True).tolist() == []


def test_signs_thresholds_and_padding_decide_what_is_active():
    states = np.array([[0.5, -0.5, np.nan], [0.2, -0.9, np.nan]]).T[:, :, None]  # (step, unit, sample)
    units = {
        sign: StateIndex(states, threshold=0.4, sign=sign).active_units(sample=0, start=1, end=1).tolist()
        for sign in ("positive", "negative", "absolute")
    }
    assert units == {"positive": [], "negative": [0, 1], "absolute": [0, 1]}
    index = StateIndex(states, threshold=[0.6, 0.1])
    assert index.active_units(sample=0, start=0, end=0).tolist() == [1]
    assert index.active_units(sample=0, start=2, end=2).tolist() == []


def test_a_period_without_an_active_unit_has_no_pattern_and_no_match():
    found = StateIndex(np.zeros((5, 3, 2))).search(sample=0, start=1, end=2)
    assert found.units.size == 0
    assert found.table.empty
    assert "jaccard" in found.table


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample": 9, "start": 0, "end": 1}, "got sample 9"),
        ({"sample": 0, "start": 2, "end": 1}, r"a period lies within steps 0\.\.4, got 2 to 1"),
        ({"sample": 0, "start": 0, "end": 5}, "a period lies within"),
        ({"sample": 0, "start": 0, "end": 1, "rank": "best"}, "rank must be"),
        ({"sample": 0, "start": 0, "end": 1, "units": [7]}, "got units"),
        ({"sample": 0, "start": 0, "end": 1, "limit": 0}, "limit must be"),
    ],
)
def test_bad_values_are_named(options, words):
    index = StateIndex(np.ones((5, 3, 2)))
    with pytest.raises(ValueError, match=words):
        index.search(**options)


def test_a_million_steps_are_searched_in_milliseconds_of_processor_time():
    """Smooth states of 20 units; the bound leaves room for a machine ten times slower than the one it was set on."""
    rng = np.random.default_rng(0)
    slow = rng.normal(size=(1000, 20, 40)).repeat(25, axis=0).astype(np.float32)  # (25,000 steps, unit, sample)
    index = StateIndex(slow, threshold=0.8)
    index.search(sample=3, start=100, end=120)
    began = time.process_time()
    found = index.search(sample=3, start=100, end=120)
    assert time.process_time() - began < 0.5
    assert len(found.table) == 25
    assert len(found.units) > 1
