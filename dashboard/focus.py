"""What is picked apart from units: a sequence, a period of it, or words; and what that is in the picture.

The page keeps it as plain JSON in the store ``focus``, panels get it as a `Focus`, and the picture and the table of
units show its nodes: a (step, unit) of the embedding knows no sequence, but a unit is highly active in a sequence at
some steps, and moves with some words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from hiddenscope.analyses.activations import ACTIVATION_DIMS, activation_thresholds, active_periods
from hiddenscope.analyses.expected_response import salient_units
from hiddenscope.dashboard.answering import events_in, place, responses_at
from hiddenscope.dashboard.remembered import remembered
from hiddenscope.run import Run

MOST_WORDS = 4
"""Words that can be compared."""
MOST_UNITS = 600
MOVED = 4
"""Units of each sign that a word picks."""
_LONGEST = 200

Node = tuple[str, int | None, int | None]
"""A unit, and the first and last step of it; None for all steps."""


@dataclass(frozen=True)
class Focus:
    """What is picked.

    Attributes:
        by: what was picked last, ``"sequence"`` or ``"word"``; empty for nothing.
        sample: position of a sequence in the probe.
        start, end: first and last step of a period of it, as steps of the inputs; None for all of it.
        units: labels of the units that the period is one of; empty for all that are highly active in it.
        words: names of words.
    """

    by: str = ""
    sample: int | None = None
    start: int | None = None
    end: int | None = None
    units: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def period(self) -> tuple[int, int] | None:
        """First and last step, where a period is picked."""
        return None if self.start is None or self.end is None else (self.start, self.end)

    def told(self, run: str) -> dict[str, Any]:
        """As the page keeps it, of one run."""
        return {"run": run, **asdict(self)}


NOTHING = Focus()


def focus_of(value: object, run: str) -> Focus:
    """What a page says is picked; it may say anything. Sequences of another run are forgotten, words are not.

    An address may leave the run out.

    >>> focus_of({"by": "sequence", "run": "a", "sample": 3, "start": 2, "end": 5, "words": ["good", 7]}, "a")
    Focus(by='sequence', sample=3, start=2, end=5, units=(), words=('good',))
    >>> focus_of({"by": "sequence", "run": "a", "sample": 3, "words": ["good"]}, "b")
    Focus(by='word', sample=None, start=None, end=None, units=(), words=('good',))
    >>> focus_of("nonsense", "a")
    Focus(by='', sample=None, start=None, end=None, units=(), words=())
    """
    if not isinstance(value, dict):
        return NOTHING
    words = _texts(value.get("words"), MOST_WORDS)
    sample, start, end = (_count(value.get(name)) for name in ("sample", "start", "end"))
    if value.get("run") not in (run, None) or sample is None:
        return Focus(by="word" if words else "", words=words)
    if start is None or end is None or end < start:
        start = end = None
    by = "word" if value.get("by") == "word" and words else "sequence"
    return Focus(by, sample, start, end, _texts(value.get("units"), MOST_UNITS), words)


def nodes_of(focus: Focus, run: Run, layer: str, epoch: float) -> tuple[list[Node], str]:
    """The nodes of the picture that belong to what is picked, and what it is, in words.

    Of a word, the units that answer to it most, four that it raises and four that it lowers; of a period of some units,
    these units at its steps; of any other period, or a whole sequence, the highly active periods of all units in it.

    Args:
        focus: what is picked.
        run: the run.
        layer: one of its layers.
        epoch: one of its epochs.
    """
    if focus.by == "word" and focus.words:
        return _nodes_of_word(focus.words[-1], run, layer, epoch)
    if focus.by != "sequence" or focus.sample is None or focus.sample >= run.description.samples.size:
        return [], ""
    said = [f"sequence {run.description.samples[focus.sample]}"]
    if focus.period is not None:
        first, last = focus.period
        said.append(f"step {first}" if first == last else f"steps {first} to {last}")
        if focus.units:
            known = set(map(str, run.description.layer(layer).units.tolist()))
            units = [unit for unit in focus.units if unit in known]
            said.append(f"unit{'' if len(units) == 1 else 's'} {', '.join(units)}")
            return [(unit, first, last) for unit in units], " \u00b7 ".join(said if units else said[:2])
    nodes = active_nodes(run, layer, epoch, focus.sample, focus.period)
    count = len({unit for unit, _, _ in nodes})
    said.append(f"{count} unit{'' if count == 1 else 's'} highly active there")
    return nodes, " \u00b7 ".join(said)


def active_nodes(run: Run, layer: str, epoch: float, sample: int, period: tuple[int, int] | None = None) -> list[Node]:
    """The highly active periods of all units in one sequence, or the parts of them that lie within a period of it."""
    key = ("periods", *place(run, layer, epoch), sample)
    periods = remembered(key, lambda: _periods(run, layer, epoch, sample))
    first, last = period or (0, np.inf)
    inside = periods[(periods["end"] >= first) & (periods["start"] <= last)]
    return [
        (str(unit), int(max(start, first)), int(min(end, last)))
        for unit, start, end in inside[["unit", "start", "end"]].itertuples(index=False)
    ]


def words_of(run: Run, layer: str, sample: int) -> list[str] | None:
    """The word at each recorded step of a sequence, "" where there is none; None where inputs are no words."""
    events = events_in(run, layer)
    if events is None or events.kind not in ("token", "symbol") or not 0 <= sample < len(events.words):
        return None
    return [events.names[code] if code >= 0 else "" for code in events.words[sample, :, 0].tolist()]


def place_of_word(run: Run, layer: str, words: Sequence[str]) -> tuple[int, int] | None:
    """The first sequence, and the step in it, at which the last of some words stands; None where none does."""
    events = events_in(run, layer)
    if not words or events is None or events.kind not in ("token", "symbol") or words[-1] not in events.names:
        return None
    found = np.argwhere(events.words[..., 0] == events.names.index(words[-1]))
    if not len(found):
        return None
    steps = run.description.layer(layer).steps
    return int(found[0, 0]), int(steps[found[0, 1]])


def _nodes_of_word(word: str, run: Run, layer: str, epoch: float) -> tuple[list[Node], str]:
    responses = responses_at(run, layer, epoch)
    if responses is None or word not in (names := responses["name"].values.tolist()):
        return [], f"\u201c{word}\u201d is not among the words of this run"
    moved = salient_units(responses, responses["word"].values[names.index(word)], count=MOVED)
    parts = []
    for verb, chosen in (("raises", moved.values > 0), ("lowers", moved.values < 0)):
        if chosen.any():
            parts.append(f"{verb} {', '.join(map(str, moved['unit'].values[chosen].tolist()))}")
    said = f"\u201c{word}\u201d " + (" and ".join(parts) if parts else "moves no unit")
    return [(str(unit), None, None) for unit in moved["unit"].values.tolist()], said


def _periods(run: Run, layer: str, epoch: float, sample: int) -> pd.DataFrame:
    states = run.trace(layer, epochs=[epoch]).isel(epoch=0).transpose(*ACTIVATION_DIMS)
    thresholds = remembered(("thresholds", *place(run, layer, epoch)), lambda: activation_thresholds(states))
    found = active_periods(states.isel(sample=[sample]), thresholds)
    steps = states["step"].values
    return found.assign(**{name: steps[found[name].to_numpy(np.intp)] for name in ("start", "end")})


def _texts(value: object, most: int) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return ()
    return tuple(each for each in value if isinstance(each, str) and len(each) <= _LONGEST)[-most:]


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value < 2**31 else None
