"""The page that a training starts ends with the training, also when that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from hiddenscope import HiddenStateMonitor, open_run
from training_examples import EPOCHS, LIGHTNINGS_OWN_WARNINGS, At, assert_same_weights, fit, fit_with_one_warning

pytestmark = [pytest.mark.filterwarnings(warning) for warning in LIGHTNINGS_OWN_WARNINGS]

TRAINING = """
import sys, time
from hiddenscope.callbacks.page import PageProcess, free_port
page = PageProcess(sys.argv[1], port=free_port(18050))
print(page.pid, page.address, flush=True)
time.sleep(600)
"""


def answers(address: str, *, patience: float = 90.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.1)
    return False


def test_the_page_and_its_worker_end_when_the_training_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        pid, address = training.stdout.readline().split()
        page = psutil.Process(int(pid))
        try:
            assert answers(address)
            started = [page, *page.children(recursive=True)]
            training.send_signal(signal.SIGKILL)
            training.wait()
            alive = [process for process in psutil.wait_procs(started, timeout=60)[1] if process.is_running()]
            assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        finally:
            training.kill()
            for process in (page, *page.children(recursive=True)) if page.is_running() else ():
                process.kill()


def test_the_page_may_be_killed(tmp_path: Path) -> None:
    monitor = HiddenStateMonitor(dashboard=True)
    seen: list[int] = []

    def kill(_: Any) -> None:
        assert monitor._page is not None
        seen.append(monitor._page.pid)
        os.kill(seen[0], signal.SIGKILL)
        monitor._page._process.wait(30)

    model, said = fit_with_one_warning(tmp_path / "watched", At(1, kill), monitor)
    assert_same_weights(model, fit(tmp_path / "plain", epochs=EPOCHS)[0])
    assert "live page has ended (exit code -9" in said
    assert "hiddenscope dashboard" in said
    assert open_run(tmp_path / "watched").epochs.tolist() == [-1, 0, 1, 2, 3]
    assert not psutil.pid_exists(seen[0])


def test_the_page_ends_with_the_training_and_so_does_all_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = HiddenStateMonitor(dashboard=True)
    group: list[psutil.Process] = []

    def look(_: Any) -> None:
        assert monitor._page is not None
        assert monitor._page.death() is None
        page = psutil.Process(monitor._page.pid)
        group.extend([page, *page.children(recursive=True)])

    fit(tmp_path, At(0, look), monitor, epochs=1)
    assert "hiddenscope: watch at http://127.0.0.1:80" in capsys.readouterr().out
    assert group
    assert not [process for process in psutil.wait_procs(group, timeout=20)[1] if process.status() != "zombie"]
