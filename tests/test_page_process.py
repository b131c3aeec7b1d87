"""The page that a training starts ends with the training, also when that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

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
