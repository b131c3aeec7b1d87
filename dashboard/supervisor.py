"""Keeps one worker alive for as long as the dashboard lives."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
HEALTHY = 30.0
"""A worker that lived this many seconds was well; the next pause after it is the first again."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Supervisor:
    """Starts the worker, restarts it after a crash (after 1, 2, 4, … up to 60 seconds), and ends it.

    Args:
        command: the worker's command line; it must end when its standard input does.
    """

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.problem = ""
        """What to tell the reader while no worker runs; empty while all is well."""
        self.process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="hiddenscope-supervisor", daemon=True)

    @classmethod
    def of(cls, logdir: Path) -> Supervisor:
        """The supervisor of the worker for ``logdir``."""
        module = "hiddenscope.dashboard.worker"
        return cls([sys.executable, "-m", module, str(logdir), "--dashboard", str(os.getpid())])

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker and wait for it, a few seconds at most."""
        self._ending.set()
        process = self.process
        if process is not None:
            _close_input(process)
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def ask(self, line: bytes) -> bool:
        """Send the worker a line; False where there is none that listens. Ask again until the answer is stored."""
        process = self.process
        if process is None or process.stdin is None or process.poll() is not None:
            return False
        try:
            with self._asking:
                process.stdin.write(line)
                process.stdin.flush()
        except (OSError, ValueError):  # it has just ended
            return False
        return True

    def _watch(self) -> None:
        pause = FIRST_PAUSE
        while not self._ending.is_set():
            began = time.monotonic()
            code, last_words = self._run_once()
            if self._ending.is_set():
                return
            if time.monotonic() - began > HEALTHY:
                pause = FIRST_PAUSE
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            said = f" ({last_words})" if last_words else ""
            self.problem = f"The worker that makes the pictures {how}{said}; it starts again in {pause:g} s."
            self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run_once(self) -> tuple[int, str]:
        environment: dict[str, Any] = {**os.environ, **{name: os.environ.get(name, "1") for name in _THREADS}}
        process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
        )
        self.process = process
        if self._ending.is_set():
            _close_input(process)
        lines: collections.deque[str] = collections.deque(maxlen=5)
        assert process.stderr is not None
        healthy = threading.Timer(FIRST_PAUSE * 5, self._recovered, args=(process,))
        healthy.daemon = True
        healthy.start()
        for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            if text:
                lines.append(text)
                print(text, file=sys.stderr)
        healthy.cancel()
        code = process.wait()
        process.stderr.close()
        _close_input(process)
        return code, lines[-1].strip() if lines else ""

    def _recovered(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            self.problem = ""


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except OSError:
            return
