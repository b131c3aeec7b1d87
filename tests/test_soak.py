"""A long watch in one test: a training that goes on, the page, its worker, and viewers; and the page's benchmark."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.page import measure
from benchmarks.soak import Soaked, soak

SECONDS = float(os.environ.get("HIDDENSCOPE_SOAK_SECONDS", "1800"))
ALLOWED = 25.0
"""Megabytes that server or worker may hold more at the end than in the middle."""


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
def test_memory_is_flat_while_a_training_is_watched_for_long(tmp_path: Path) -> None:
    found = soak(tmp_path, seconds=SECONDS)
    assert not found.failures
    assert found.epochs > SECONDS / 4
    assert found.newest_seen > 0
    server, worker = found.growth()
    assert server < ALLOWED, found.server
    assert worker < ALLOWED, found.worker


def test_growth_compares_the_last_fifth_with_the_middle() -> None:
    flat, growing = tuple(np.full(50, 300.0)), tuple(300.0 + np.arange(50))
    assert Soaked(flat, growing, 1, 1, 1, ()).growth() == (0.0, 20.0)


@pytest.mark.slow
def test_the_benchmark_of_the_page_runs_at_toy_size(tmp_path: Path) -> None:
    found = measure(tmp_path, (6, 5), 4, viewers=2, seconds=2.0)
    assert found["run (epoch, step, unit)"] == (4, 6, 5)
    assert found["points of the stored picture"] == 4 * 6 * 5
    for name in ("first view, of a server just started", "from commit to viewer, asked every 50 ms"):
        assert " ms of processors" in str(found[name])
