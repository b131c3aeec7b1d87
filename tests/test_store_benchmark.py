"""The benchmark of the store runs, and says what it should, at toy size."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_benchmark_of_the_store_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    from benchmarks.storing import measure

    told = measure(tmp_path, (4, 3, 50), epochs=12)
    assert told["epochs"] == 12
    assert told["states MB per epoch"] == round(4 * 3 * 50 * 4 / 1e6, 3)
    assert all(isinstance(value, tuple) or float(value) >= 0 for value in told.values())  # type: ignore[arg-type]
