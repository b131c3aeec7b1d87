"""What the worker of a run is doing, in a small file beside the run's results that readers may look at any time."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

NAME = "worker.json"


@dataclass(frozen=True)
class Entry:
    """One statement of the worker about one run.

    Attributes:
        state: ``"embedding"``, ``"idle"`` or ``"failed"``.
        layer: the layer it is about, when there is one.
        epoch: the newest epoch that the picture being made covers.
        note: what is left out of the picture, such as ``"16 of 128 steps"``.
        error: what went wrong, in one line.
        advice: what the reader can do about it.
        since: when this state began, in seconds since 1970.
        pid: the worker's process.
        dashboard: the process of the dashboard that started it.
        doing: what else is being computed, in words; empty for nothing.
        studies: what went wrong with studies and requests that failed, by ``"layer/method"``, in one line each.
    """

    state: str
    layer: str = ""
    epoch: float | None = None
    note: str = ""
    error: str = ""
    advice: str = ""
    since: float = field(default_factory=time.time)
    pid: int = field(default_factory=os.getpid)
    dashboard: int = 0
    doing: str = ""
    studies: dict[str, str] = field(default_factory=dict)


def write(run_folder: Path, entry: Entry) -> None:
    """Replace the entry of a run in one step: a reader sees the old one or the new one."""
    target = run_folder / NAME
    draft = run_folder / f".{NAME}.{os.getpid()}"
    draft.write_text(json.dumps(asdict(entry)), encoding="utf-8")
    os.replace(draft, target)


def read(run_folder: Path) -> Entry | None:
    """The entry of a run, or None when there is none that makes sense."""
    try:
        with open(run_folder / NAME, encoding="utf-8") as file:
            found = json.loads(file.read(20_000))
        known = {item.name for item in fields(Entry)}
        entry = Entry(**{name: value for name, value in found.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    studies: object = entry.studies
    if not isinstance(studies, dict):
        return None
    told = (*studies.keys(), *studies.values())
    texts = (entry.state, entry.layer, entry.note, entry.error, entry.advice, entry.doing, *told)
    numbers = (entry.since, entry.pid, entry.dashboard, entry.epoch or 0)
    sound = all(isinstance(text, str) for text in texts) and all(isinstance(number, int | float) for number in numbers)
    return entry if sound else None
