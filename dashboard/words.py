"""The words of the page: status, freshness, what to do. Pure functions from facts to text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from hiddenscope.dashboard.figures.template import epoch_text
from hiddenscope.dashboard.journal import Entry

STATUS = {
    "training": "training",
    "finished": "finished",
    "interrupted": "interrupted",
    "killed": "killed: the training ended without a word",
    "unreadable": "cannot be read",
}


def age(seconds: float) -> str:
    """How old something is, in the largest unit that says enough.

    >>> age(3.2), age(200), age(90_000)
    ('3 s', '3 min', '25 h')
    """
    if seconds < 100:
        return f"{max(0, round(seconds))} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 360_000:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def recorded(epoch: float | None) -> str:
    """The newest recorded epoch.

    >>> recorded(None), recorded(-1.0), recorded(12.0)
    ('no epoch yet', 'untrained network recorded', 'epoch 12')
    """
    if epoch is None:
        return "no epoch yet"
    return "untrained network recorded" if epoch == -1 else f"epoch {epoch_text(epoch)}"


def freshness(attributes: Mapping[str, Any] | None, newest: float | None, now: float) -> str:
    """Which epoch the picture covers and how old it is.

    >>> freshness(None, 3.0, 0.0)
    'no picture yet'
    >>> freshness({"covers_epoch": 3.0, "computed_at": 10.0}, 4.0, 12.0)
    'picture of epoch 3, 2 s old'
    """
    if attributes is None:
        return "no picture yet"
    covers = float(attributes["covers_epoch"])
    return f"picture of epoch {epoch_text(covers)}, {age(now - float(attributes['computed_at']))} old"


def working(entry: Entry | None, layer: str, now: float) -> str:
    """What is being computed at this moment; empty when nothing is."""
    if entry is not None and entry.doing:
        return f"computing {entry.doing}"
    if entry is None or entry.state != "embedding" or entry.epoch is None:
        return ""
    which = "" if entry.layer == layer else f" of {entry.layer}"
    return f"embedding epoch {epoch_text(entry.epoch)}{which} for {age(now - entry.since)}"


def many(count: int) -> str:
    """A number of points, as people say it.

    >>> many(20_000), many(12_800_000)
    ('20,000', '12.8 million')
    """
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:.3g} million"


def left_out(result: xr.Dataset | None, shown: str, recorded: int = 0) -> str:
    """What the picture does not hold: left out when it was embedded, and when it was drawn.

    ``recorded`` is how many points there would be if nothing were left out.
    """
    if result is None:
        return ""
    seconds = float(result.attrs.get("seconds", 0.0))
    note = str(result.attrs.get("note", ""))
    how = "updated" if result.attrs.get("made_live") else "embedded"
    parts = [f"{how} from {note}" if note else f"{how} from every step and epoch", f"in {age(seconds)}"]
    sentence = " ".join(parts)
    if note and recorded:
        sentence += f", {many(recorded)} points are recorded"
    return f"{shown} \u00b7 {sentence}" if shown else sentence


def older(covered: float | None, newest: float) -> str:
    """That a picture does not hold the newest epochs.

    >>> older(3.0, 7.0)
    'up to epoch 3 of 7'
    """
    return "" if covered is None else f"up to epoch {epoch_text(covered)} of {epoch_text(newest)}"


@dataclass(frozen=True)
class Measure:
    """One of the numbers that say how far a picture is to be trusted, as a bar shows it.

    Attributes:
        group: what stands once before the bars that ask alike.
        name: what stands before this one.
        value: how full the bar is, from 0 to 1.
        chance: where chance would end, from 0 to 1; None where that is not known.
        number: the value as it is written behind the bar.
        by_chance: chance as it is written, in the same unit; empty where that is not known.
        unit: what is written behind the number; may be empty.
    """

    group: str
    name: str
    value: float
    chance: float | None
    number: str
    by_chance: str
    unit: str = ""


_KEPT, _OVERALL = "true neighbors kept", "all points at once"
_MEASURES = (
    ("intra", _KEPT, "within a step"),
    ("inter", _KEPT, "across steps"),
    ("trustworthiness", _OVERALL, "no false neighbors"),
    ("rank_correlation", _OVERALL, "distances in order"),
)


def measures(attributes: Mapping[str, Any]) -> list[Measure]:
    """Whatever measures of trust are stored with a picture.

    >>> [found] = measures({"fidelity_intra": 0.79, "fidelity_intra_chance": 0.34})
    >>> found.group, found.name, found.number, found.unit, found.by_chance
    ('true neighbors kept', 'within a step', '7.9', 'of 10', '3.4')
    >>> [found] = measures({"fidelity_rank_correlation": -0.02})  # a bar has no other side
    >>> found.number, found.value, found.chance
    ('-0.02', 0.0, None)
    """

    def number_of(key: str) -> float | None:
        value = attributes.get(f"fidelity_{key}")
        return float(value) if isinstance(value, float | int) and math.isfinite(value) else None

    found = []
    for key, group, name in _MEASURES:
        value, chance = number_of(key), number_of(f"{key}_chance")
        if value is None:
            continue
        counted = group == _KEPT
        by_chance = "" if chance is None else _written(chance, counted)
        mark = None if chance is None else _in_bar(chance)
        unit = "of 10" if counted else ""
        found.append(Measure(group, name, _in_bar(value), mark, _written(value, counted), by_chance, unit))
    return found


def _written(value: float, counted: bool) -> str:
    """Of ten neighbors, or with two digits; chance is not a negative nothing."""
    return f"{10 * value:.1f}" if counted else f"{value:.2f}".replace("-0.00", "0.00")


def _in_bar(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def measured_on(attributes: Mapping[str, Any]) -> str:
    """Which part of the picture the measures are of; empty for all of it.

    >>> measured_on({"fidelity_epochs": 5.0}), measured_on({})
    ('trust measured on the newest 5 epochs', '')
    """
    count = attributes.get("fidelity_epochs")
    return f"trust measured on the newest {count:g} epochs" if isinstance(count, float | int) else ""


def fidelity(attributes: Mapping[str, Any]) -> str:
    """How far to trust the picture, from whatever measures are stored with it.

    >>> print(fidelity({"fidelity_intra": 0.79, "fidelity_intra_chance": 0.34, "fidelity_trustworthiness": 0.97}))
    true neighbors kept: within a step 7.9 of 10 (3.4 by chance); all points at once: no false neighbors 0.97
    """
    groups: dict[str, list[str]] = {}
    for one in measures(attributes):
        said = " ".join(part for part in (one.name, one.number, one.unit) if part)
        groups.setdefault(one.group, []).append(said + (f" ({one.by_chance} by chance)" if one.by_chance else ""))
    return "; ".join(f"{group}: {', '.join(parts)}" for group, parts in groups.items())


def failed_studies(entry: Entry | None, layer: str, methods: Sequence[str]) -> list[str]:
    """What went wrong with some studies of a layer, as the worker tells it.

    >>> entry = Entry("idle", studies={"lstm/pod": "ValueError: too few epochs"})
    >>> failed_studies(entry, "lstm", ["pod", "phases"]), failed_studies(entry, "gru", ["pod"])
    (['ValueError: too few epochs'], [])
    """
    told = {} if entry is None else entry.studies
    return [told[key] for key in (f"{layer}/{method}" for method in methods) if key in told]


def matched(attributes: Mapping[str, Any], alone: Sequence[str] = ()) -> str:
    """How the units of two runs in one picture were matched, and how well; ``alone`` says how many are in one run only.

    >>> matched({"matching": "response", "match_median": 0.83, "match_chance": 0.31})
    'matched by response: each unit with the one of the other run that answers most like it, one to one; half of the
    pairs correlate above 0.83 (0.31 by chance)'
    """
    began_alike = bool(attributes.get("began_alike"))
    if attributes.get("matching") == "response":
        how = "matched by response: each unit with the one of the other run that answers most like it, one to one"
    elif began_alike:
        how = "matched by number: both runs began from the same weights"
    else:
        how = "matched by number, although the runs began from different weights, so the same number means nothing"
    median, chance = attributes.get("match_median"), attributes.get("match_chance")
    parts = [how]
    if isinstance(median, float | int):
        by_chance = f" ({_signed(chance)} by chance)" if isinstance(chance, float | int) else ""
        parts.append(f"half of the pairs correlate above {_signed(median)}{by_chance}")
    else:
        parts.append("no pair can be compared")
    return "; ".join([*parts, *alone])


def _signed(value: float) -> str:
    """With two digits, and no minus before a zero.

    >>> _signed(-0.001), _signed(-0.05)
    ('0.00', '-0.05')
    """
    return f"{round(value, 2) + 0.0:.2f}"
