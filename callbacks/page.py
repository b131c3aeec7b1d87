"""The live page as a process of its own beside the training, which does not care when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings

from hiddenscope.callbacks.folders import shortened
from hiddenscope.errors import RecordingWarning

FIRST_PORT = 8050
_TRIES = 100


class PageProcess:
    """``hiddenscope dashboard`` in a process group of its own, so that Ctrl-C in the training does not reach it.

    Args:
        logdir: the folder of runs that the page shows.
        port: where it serves.
        stay: let the page outlive this process. Otherwise it ends with it, however that ends: the page waits for the
            end of its standard input, whose other end is held here.
    """

    def __init__(self, logdir: str, *, port: int, stay: bool = False) -> None:
        self.logdir = logdir
        self.address = f"http://127.0.0.1:{port}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop
        command = [sys.executable, "-m", "hiddenscope", "dashboard", logdir, "--port", str(port)]
        self._process = subprocess.Popen(
            command if stay else [*command, "--until-input-ends"],
            stdin=subprocess.DEVNULL if stay else subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process, which is also the id of its group."""
        return self._process.pid

    def death(self) -> str | None:
        """Why the page is gone, in a few words; None while it lives."""
        code = self._process.poll()
        if code is None:
            return None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1][:200]}" if lines else "")

    def stop(self, *, patience: float = 5.0) -> None:
        """End the page and everything it started; again, it does nothing."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGTERM)
        else:
            self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            if os.name == "posix":
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait(patience)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._errors.close()


def start_page(logdir: str, *, stay: bool, strict: bool) -> PageProcess | None:
    """Serve the live page and say where.

    Returns:
        None, after a warning, where it cannot be started.

    Raises:
        OSError: with ``strict``, instead of the warning.
    """
    try:
        page = PageProcess(logdir, port=free_port(), stay=stay)
    except OSError as error:
        if strict:
            raise
        _warn(logdir, f"cannot be started ({error})")
        return None
    print(f"hiddenscope: watch at {page.address}", flush=True)
    return page


def watched(page: PageProcess | None) -> PageProcess | None:
    """The page while it lives; None once it is gone, which is said then."""
    death = None if page is None else page.death()
    if page is None or death is None:
        return page
    page.stop()
    _warn(page.logdir, f"has ended ({death})")
    return None


def _warn(logdir: str, fate: str) -> None:
    warnings.warn(
        f"hiddenscope: the live page {fate}; recording goes on. "
        f"Start it with: hiddenscope dashboard {shortened(logdir)}",
        RecordingWarning,
        stacklevel=3,
    )


def free_port(first: int = FIRST_PORT) -> int:
    """The first port from ``first`` on that nobody on this machine listens on.

    Raises:
        OSError: a hundred ports in a row are in use.
    """
    for port in range(first, first + _TRIES):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(
        f"ports {first} to {first + _TRIES - 1} are all in use; start hiddenscope dashboard with --port yourself"
    )
