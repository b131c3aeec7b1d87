"""A record waits for the metrics of its epoch, which become known after its states were read; some come later still."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hiddenscope.callbacks.session import Captured, Session
from hiddenscope.description import STEP


@dataclass(frozen=True)
class Record:
    """What was read of the model, and its scalars by the names they are logged under; ``step`` as `STEP`."""

    epoch: float
    captured: Captured
    scalars: dict[str, float]
    step: int

    @property
    def metrics(self) -> dict[str, float]:
        """What is known of the epoch when its states are read."""
        return {**self.scalars, STEP: float(self.step)}


class Outbox:
    """Holds one record until its metrics are there, hands it to the session, and amends it with what comes after."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: Record | None = None
        self._sent: tuple[float, dict[str, float]] | None = None
        self._late: set[str] = set()  # metrics that are logged after their epoch was sent off

    @property
    def waits(self) -> float | None:
        """The epoch of the record that waits."""
        return None if self._waiting is None else self._waiting.epoch

    def put(self, record: Record) -> None:
        """Let a record wait for its metrics."""
        self._waiting = record

    def send_first(self) -> None:
        """The untrained network; or the resumed one, where the run does not have that epoch already."""
        record, self._waiting = self._waiting, None
        if record is None or any(math.isclose(record.epoch, epoch, abs_tol=1e-9) for epoch in self._session.epochs):
            return
        self._session.submit(record.epoch, record.captured, record.metrics)

    def settle(self, metrics: Mapping[str, float]) -> None:
        """Send off the record that waits, with the metrics as they are now; else amend the one before, once."""
        record, self._waiting = self._waiting, None
        if record is not None:
            # What is logged after us still has its value of the epoch before.
            known = {name: value for name, value in metrics.items() if name not in self._late} | record.metrics
            self._session.submit(record.epoch, record.captured, known)
            self._sent = (record.epoch, known)
        elif self._sent is not None:
            epoch, known = self._sent
            late = {name: value for name, value in metrics.items() if not _same(value, known.get(name))}
            self._session.amend(epoch, late)
            self._late.update(late)
            self._sent = None

    def forget_last(self) -> None:
        """The record that was sent off last is not to be amended."""
        self._sent = None


def _same(value: float, known: float | None) -> bool:
    return known is not None and (value == known or (math.isnan(value) and math.isnan(known)))
