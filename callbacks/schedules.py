"""When to record: a schedule is a pair of questions, one asked after every epoch, one after every optimiser step.

The untrained network, epoch -1, is recorded whatever the schedule says. Epochs and steps are counted as completed ones:
``"5 epochs"`` records after 5, 10, 15, … epochs, so the recorded epoch numbers are -1, 4, 9, 14, …, evenly spaced.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

Every = int | str | list[int] | Callable[[int], bool]
"""What ``every=`` accepts; see `parse_schedule`."""

_PERIOD = re.compile(r"(?:(?P<period>\d+)\s+)?(?P<unit>epoch|step)s?")
_LOGARITHMIC = re.compile(r"log(?:\s+(?P<unit>epoch|step)s?)?")
_PER_DOUBLING = 4


@dataclass(frozen=True)
class Schedule:
    """Answers whether the state after an epoch, or after some optimiser steps, is to be recorded.

    ``due`` takes the number of completed epochs, or of completed optimiser steps where ``counts_steps``.
    """

    text: str
    due: Callable[[int], bool]
    counts_steps: bool = False

    def after_epoch(self, epoch: int) -> bool:
        """Whether to record at the end of ``epoch``, counted from 0."""
        return not self.counts_steps and self.due(epoch + 1)

    def after_steps(self, before: int, after: int) -> bool:
        """Whether a scheduled step lies in (before, after]: with several optimisers a batch takes more than one."""
        return self.counts_steps and any(map(self.due, range(before + 1, after + 1)))


def parse_schedule(every: Every) -> Schedule:
    """A schedule from what a person would type.

    Args:
        every: a number of epochs (``5``); ``"5 epochs"`` or ``"200 steps"`` (optimiser steps); ``"log"``,
            ``"log epochs"`` or ``"log steps"`` (about four records for each doubling, so early training is seen
            closely and late training cheaply); a list of epoch numbers; or a function from an epoch number to a bool.

    Raises:
        ValueError: a period below 1, an empty list, or a text that is none of these.

    >>> schedule = parse_schedule("5 epochs")
    >>> [epoch for epoch in range(12) if schedule.after_epoch(epoch)]
    [4, 9]
    >>> schedule = parse_schedule("log")
    >>> [epoch + 1 for epoch in range(20) if schedule.after_epoch(epoch)]
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19]
    """
    if isinstance(every, bool):
        raise ValueError(f"every= needs a number of epochs, a text such as '200 steps', or a function, got {every}")
    if isinstance(every, int):
        return _periodic(every, "epoch")
    if isinstance(every, str):
        return _from_text(every)
    if callable(every):
        return Schedule("by a function of the epoch", partial(_asked, every))
    if isinstance(every, Iterable):
        return _listed(every)
    raise ValueError(f"every= needs a number of epochs, a text such as '200 steps', or a function, got {every!r}")


def _from_text(text: str) -> Schedule:
    wanted = text.strip().lower()
    if match := _PERIOD.fullmatch(wanted):
        return _periodic(int(match["period"] or 1), match["unit"])
    if match := _LOGARITHMIC.fullmatch(wanted):
        unit = match["unit"] or "epoch"
        return Schedule(f"log {unit}s", _is_log_spaced, counts_steps=unit == "step")
    raise ValueError(f"every= understands '5 epochs', '200 steps', 'log epochs' and 'log steps', got {text!r}")


def _periodic(period: int, unit: str) -> Schedule:
    if period < 1:
        raise ValueError(f"every= needs a period of at least 1 {unit}, got {period}")
    text = f"every {unit}" if period == 1 else f"every {period} {unit}s"
    return Schedule(text, partial(_is_multiple, period), counts_steps=unit == "step")


def _listed(epochs: Iterable[int]) -> Schedule:
    wanted = frozenset(epochs)
    if not wanted or not all(isinstance(epoch, int) and epoch >= 0 for epoch in wanted):
        raise ValueError(f"every= as a list needs epoch numbers from 0 up, got {sorted(wanted, key=str)}")
    return Schedule(f"at {len(wanted)} chosen epochs", partial(_asked, wanted.__contains__))


# Plain functions, not closures, so that a monitor can be pickled for the processes of strategy="ddp_spawn".


def _is_multiple(period: int, completed: int) -> bool:
    return completed % period == 0


def _asked(function: Callable[[int], bool], completed: int) -> bool:
    return bool(function(completed - 1))


def _is_log_spaced(completed: int) -> bool:
    """Whether ``completed`` is 2**(k / 4), rounded, for some k = 0, 1, 2, …"""
    if completed < 1:
        return False
    nearest = round(_PER_DOUBLING * math.log2(completed))
    return any(round(2 ** (k / _PER_DOUBLING)) == completed for k in (nearest - 1, nearest, nearest + 1))
