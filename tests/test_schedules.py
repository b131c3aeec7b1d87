"""Schedules: which epochs and steps are due."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiddenscope.callbacks.schedules import parse_schedule


def due_epochs(every: object, count: int) -> list[int]:
    schedule = parse_schedule(every)  # type: ignore[arg-type]
    return [epoch for epoch in range(count) if schedule.after_epoch(epoch)]


def test_every_epoch_is_the_default_meaning_of_one() -> None:
    assert due_epochs(1, 4) == [0, 1, 2, 3]
    assert due_epochs("epoch", 4) == due_epochs("1 epochs", 4) == due_epochs(1, 4)


@given(st.integers(1, 50), st.integers(0, 300))
def test_a_period_in_epochs_is_evenly_spaced_from_the_untrained_network_on(period: int, count: int) -> None:
    assert due_epochs(f"{period} epochs", count) == list(range(period - 1, count, period))
    assert due_epochs(period, count) == due_epochs(f"{period} epochs", count)


@given(st.integers(1, 40), st.lists(st.integers(0, 90), max_size=30))
def test_a_period_in_steps_is_due_when_a_multiple_was_passed_however_many_steps_a_batch_takes(
    period: int, advances: list[int]
) -> None:
    schedule = parse_schedule(f"{period} steps")
    step = 0
    for advance in advances:
        passed = any(number % period == 0 for number in range(step + 1, step + advance + 1))
        assert schedule.after_steps(step, step + advance) is passed
        step += advance


def test_schedules_in_steps_leave_the_epochs_alone_and_the_other_way_round() -> None:
    assert due_epochs("200 steps", 500) == []
    assert not any(parse_schedule("5 epochs").after_steps(step, step + 1) for step in range(500))


def test_log_spaced_epochs_are_four_for_each_doubling() -> None:
    completed = [epoch + 1 for epoch in due_epochs("log", 5000)]
    assert completed == sorted({round(2 ** (k / 4)) for k in range(4 * 13) if round(2 ** (k / 4)) <= 5000})
    assert due_epochs("log epochs", 100) == due_epochs("log", 100)


def test_log_spaced_steps_follow_the_same_rule() -> None:
    schedule = parse_schedule("log steps")
    due = [step for step in range(1, 2000) if schedule.after_steps(step - 1, step)]
    assert due == [epoch + 1 for epoch in due_epochs("log", 2000) if epoch + 1 < 2000]
    assert schedule.after_steps(20, 22) is False
    assert schedule.after_steps(20, 23) is True


def test_a_list_and_a_function_choose_epoch_numbers_themselves() -> None:
    assert due_epochs([0, 3, 7], 10) == [0, 3, 7]
    assert due_epochs(lambda epoch: epoch in (2, 5), 10) == [2, 5]
    assert due_epochs(lambda epoch: math.isqrt(epoch) ** 2 == epoch, 10) == [0, 1, 4, 9]


@pytest.mark.parametrize(
    ("every", "said"),
    [
        (0, "at least 1 epoch"),
        ("0 steps", "at least 1 step"),
        ("weekly", "understands '5 epochs'"),
        ("5 batches", "got '5 batches'"),
        ([], "needs epoch numbers"),
        ([-1], "needs epoch numbers"),
        (True, "got True"),
        (1.5, "got 1.5"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_would_be(every: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_schedule(every)  # type: ignore[arg-type]
