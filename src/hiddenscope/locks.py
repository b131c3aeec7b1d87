"""One writer per repository: an operating-system lock that dies with the process that holds it."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import warnings
import weakref
from pathlib import Path
from typing import Any, Self

from hiddenscope.errors import RunLockedError

if sys.platform == "win32":
    import msvcrt

    _OFFSET = 2**30  # Windows locks are mandatory: lock a byte past the text, so that others can read who holds it

    def _lock(descriptor: int, *, exclusive: bool) -> None:
        os.lseek(descriptor, _OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int, *, exclusive: bool) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


_PATIENCE = 1.0  # seconds; a reader that asks who writes holds the lock for microseconds
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_RECORD = 512  # bytes
_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


class WriterLock:
    """Held from construction to `release`, or to the end of the process, however it ends.

    Args:
        path: the lock file; it stays where it is afterwards, since removing lock files is a race.
        what: what is being locked, for the message.

    Attributes:
        exclusive: whether nobody else can hold it; False, after a warning, on a file system without locks.

    Raises:
        RunLockedError: another writer holds it.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self.exclusive = _acquire(descriptor, path, what)
            record = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}).encode()
            # One write of one length over the former record: a process killed here leaves the one or the other.
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, record[:_RECORD].ljust(_RECORD))
            os.ftruncate(descriptor, _RECORD)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor: int | None = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let the next writer in; calling it again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _acquire(descriptor: int, path: Path, what: str) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            _lock(descriptor, exclusive=True)
            return True
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise RunLockedError(
                    f"{what} already has a writer ({_owner(path)}); wait until it ends, or choose another folder"
                ) from None
            time.sleep(0.01)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"the file system of {path.parent} has no locks ({error.strerror}); "
                "a second writer will be noticed only when it writes",
                stacklevel=2,
            )
            return False


def is_held(path: Path) -> bool | None:
    """Whether a living writer holds the lock at ``path``, None when it cannot be told; asking never stops a writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        _lock(descriptor, exclusive=False)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(descriptor)


def written_here(path: Path) -> bool:
    """Whether the last writer ran on this host, so that a lock that is free means that it has ended."""
    return _record(path).get("host") == socket.gethostname()


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8", errors="replace")[:1000])
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _owner(path: Path) -> str:
    record = _record(path)
    return f"process {record['pid']} on {record['host']}" if {"pid", "host"} <= set(record) else "another process"


def _forget_in_child() -> None:
    # A forked data-loading worker must not keep the lock alive after the training process is gone.
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
