"""Where a run lies: a folder, an S3 address, or the memory of this process, each as an Icechunk storage."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import icechunk

from hiddenscope.errors import HiddenscopeError, RunFormatError, RunLockedError
from hiddenscope.locks import WriterLock, is_held, written_here

BRANCH = "main"
_MANIFEST_EPOCHS = 256  # a commit rewrites one manifest of at most so many epochs, however long the run
# Icechunk keeps what it has read and written, by default gigabytes of it; a training must not grow with its epochs.
_CACHES = icechunk.CachingConfig(num_snapshot_nodes=2_000, num_chunk_refs=50_000, num_transaction_changes=2_000)
_memory: dict[str, icechunk.Storage] = {}
_memory_locks: set[str] = set()

S3_OPTIONS = (
    "access_key_id",
    "allow_http",
    "anonymous",
    "endpoint_url",
    "force_path_style",
    "region",
    "secret_access_key",
    "session_token",
)


@dataclass(frozen=True)
class Location:
    """A place that can hold repositories.

    Attributes:
        scheme: ``"file"``, ``"s3"`` or ``"memory"``.
        path: the folder, ``bucket/prefix``, or the name in memory.
        options: for S3, any of ``S3_OPTIONS``; what is not given comes from the environment (``AWS_…``).
    """

    scheme: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.path if self.scheme == "file" else f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> Location:
        return Location(self.scheme, f"{self.path.rstrip('/')}/{name}", self.options)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def folder(self) -> Path | None:
        """The folder on this machine's file system, when it is one."""
        return Path(self.path) if self.scheme == "file" else None


def as_location(where: str | os.PathLike[str] | Location, options: Mapping[str, Any] | None = None) -> Location:
    """The location behind a path or an address.

    Args:
        where: a path, ``file:///…``, ``s3://bucket/prefix``, or ``memory://name`` (shared within this process).
        options: see `Location`.

    Raises:
        ValueError: an unknown kind of address, or an unknown option.

    >>> str(as_location("s3://bucket/runs/first") / "snapshots")
    's3://bucket/runs/first/snapshots'
    """
    if isinstance(where, Location):
        return where
    text = os.fspath(where)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "file", os.path.abspath(os.path.expanduser(text)).replace(os.sep, "/")
    elif scheme == "file":
        rest = os.path.abspath(url2pathname(urlsplit(text).path)).replace(os.sep, "/")
    elif scheme not in ("s3", "memory"):
        raise ValueError(f"a run lies in a folder, at s3://bucket/prefix or at memory://name, got {text!r}")
    elif not rest.strip("/"):
        raise ValueError(f"{scheme}:// needs a {'bucket' if scheme == 's3' else 'name'} after it, got {text!r}")
    unknown = sorted(set(options or {}) - set(S3_OPTIONS)) if scheme == "s3" else sorted(options or {})
    if unknown:
        known = f"known are {', '.join(S3_OPTIONS)}" if scheme == "s3" else "only s3:// takes options"
        raise ValueError(f"got storage option {', '.join(map(repr, unknown))}; {known}")
    return Location(scheme, rest if scheme == "file" else rest.strip("/"), dict(options or {}))


def run_name(location: Location) -> str:
    """What to call a run: the folder that it was logged into.

    >>> run_name(as_location("s3://bucket/logs/version_0/hiddenscope"))
    'version_0'
    """
    if location.name != "hiddenscope":
        return location.name
    parent = location.path.rstrip("/").rpartition("/")[0]
    return parent.rpartition("/")[2] or location.name


def open_repository(location: Location) -> icechunk.Repository | None:
    """The repository at ``location``, or None when there is none.

    Raises:
        RunFormatError: something is there that Icechunk cannot read.
    """
    storage = _storage(location)
    with readable(location):
        if storage is None or not icechunk.Repository.exists(storage):
            return None
        return icechunk.Repository.open(storage, icechunk.RepositoryConfig(caching=_CACHES))


def create_repository(location: Location) -> icechunk.Repository:
    """A new, empty repository at ``location``, its folders included."""
    if location.scheme == "memory":
        _memory.setdefault(location.path, icechunk.in_memory_storage())
    elif location.folder is not None:
        location.folder.mkdir(parents=True, exist_ok=True)
    condition = icechunk.ManifestSplitDimCondition.DimensionName("epoch")
    splitting = icechunk.ManifestSplittingConfig.from_dict(
        {icechunk.ManifestSplitCondition.AnyArray(): {condition: _MANIFEST_EPOCHS}}
    )
    storage = _storage(location)
    assert storage is not None
    config = icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(splitting=splitting))
    icechunk.Repository.create(storage, config=config).save_config()
    created = open_repository(location)
    assert created is not None
    return created


def version_of(repository: icechunk.Repository) -> str:
    """The newest commit; costs one small read."""
    return repository.lookup_branch(BRANCH)


def continued(
    repository: icechunk.Repository, version: str, *, lock: RepositoryLock, where: Location
) -> icechunk.Session:
    """A session that goes on from commit ``version``, or `RunLockedError` when somebody else has gone on from there."""
    session = repository.writable_session(BRANCH)
    # Under a lock, a commit that we do not know is our own, made just as we were interrupted.
    if session.snapshot_id != version and not lock.exclusive:
        raise _overtaken(where)
    return session


def commit(session: icechunk.Session, message: str, *, lock: RepositoryLock, where: Location) -> str:
    """Commit and return the new version, or say that somebody else did so first."""
    try:
        return session.commit(message)
    except icechunk.ConflictError:
        if lock.exclusive:
            raise OSError(
                f"{where} is not as its writer left it: it was removed, replaced, or written from another machine"
            ) from None
        raise _overtaken(where) from None


def _overtaken(where: Location) -> RunLockedError:
    return RunLockedError(f"{where} was written by somebody else since this writer opened it; choose another place")


class RepositoryLock:
    """The right to write one repository: an operating-system lock on a folder, a name in memory, or, for S3, the
    promise that the second to commit is told so (see `commit`)."""

    def __init__(self, location: Location) -> None:
        self._name: str | None = None
        self._lock: WriterLock | None = None
        if location.folder is not None:
            location.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(lock_path(location.folder), what=str(location.folder.parent))
        elif location.scheme == "memory":
            if location.path in _memory_locks:
                raise RunLockedError(f"{location} already has a writer in this process; finish that one first")
            _memory_locks.add(location.path)
            self._name = location.path

    @property
    def exclusive(self) -> bool:
        """Whether nobody else can write while this lock is held."""
        return self._name is not None or (self._lock is not None and self._lock.exclusive)

    def release(self) -> None:
        """Let the next writer in; calling it again does nothing."""
        if self._lock is not None:
            self._lock.release()
        if self._name is not None:
            _memory_locks.discard(self._name)
            self._name = None


def lock_path(folder: Path) -> Path:
    """The lock file that belongs to the repository in ``folder``."""
    return folder.with_name(folder.name + ".lock")


def has_writer(location: Location) -> bool | None:
    """Whether a living writer holds the repository at ``location``; None when that cannot be known from here."""
    if location.scheme == "memory":
        return location.path in _memory_locks
    if location.folder is None:
        return None
    path = lock_path(location.folder)
    held = is_held(path)
    return held if held or held is None or written_here(path) else None


@contextmanager
def readable(where: object) -> Iterator[None]:
    """Whatever a damaged repository can provoke becomes one `RunFormatError` that names the place."""
    try:
        yield
    except (HiddenscopeError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        remote = isinstance(where, Location) and where.scheme == "s3"
        if remote and isinstance(error, icechunk.IcechunkError) and "NoSuchKey" not in str(error):
            raise OSError(f"{where} cannot be reached ({_first_line(error)})") from error
        # A damaged file can make Icechunk panic, and a Rust panic arrives as a BaseException of its own.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RunFormatError(f"{where} cannot be read ({_first_line(error)})") from error


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Whatever goes wrong in Icechunk while writing becomes an ``OSError`` that names the place."""
    try:
        yield
    except icechunk.IcechunkError as error:
        raise OSError(f"{where} cannot be written ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    """The gist of an error; Icechunk's run over many lines, the first with an ``x``, the last with the cause."""
    lines = [line.strip(" |-`>x") for line in str(error).splitlines() if line.strip(" |")]
    if not lines:
        return type(error).__name__
    ends = dict.fromkeys((lines[0], lines[-1]) if isinstance(error, icechunk.IcechunkError) else lines[:1])
    return ": ".join(ends)


def _storage(location: Location) -> icechunk.Storage | None:
    _quiet()
    if location.scheme == "memory":
        return _memory.get(location.path)
    if location.scheme == "s3":
        bucket, _, prefix = location.path.partition("/")
        options = dict(location.options)
        endpoint = options.get("endpoint_url") or os.environ.get(
            "AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL")
        )
        if endpoint:
            options = {"allow_http": endpoint.startswith("http://"), "force_path_style": True, **options}
            options["endpoint_url"] = endpoint
        if "access_key_id" not in options and not options.get("anonymous"):
            options["from_env"] = True
        return icechunk.s3_storage(bucket=bucket, prefix=prefix or None, **options)
    return icechunk.local_filesystem_storage(location.path) if Path(location.path).is_dir() else None


@cache
def _quiet() -> None:
    # Icechunk warns that folders are not safe for several writers; ours has one, and a lock sees to it.
    if not os.environ.get("ICECHUNK_LOG"):
        icechunk.set_logs_filter("warn,icechunk::storage::object_store=error")
