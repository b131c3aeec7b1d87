"""Texts as integer tokens: a vocabulary, and sequences of one length, filled up at their ends."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

PAD, UNKNOWN = "<pad>", "<unk>"
_WORDS = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """Names of tokens; code 0 fills sequences up, code 1 stands for everything else that has no code."""

    names: tuple[str, ...]

    def encode(self, tokens: Sequence[str], *, length: int) -> Ints:
        """The codes of one sequence, cut or filled up to ``length``; shape (step,)."""
        codes = {name: code for code, name in enumerate(self.names)}
        found = [codes.get(token, 1) for token in tokens[:length]]
        return np.array(found + [0] * (length - len(found)), dtype=np.int64)


def words_of(text: str) -> list[str]:
    """Words in lower case and punctuation marks.

    >>> words_of("It isn't BAD, is it?")
    ['it', "isn't", 'bad', ',', 'is', 'it', '?']
    """
    return _WORDS.findall(text.lower())


def vocabulary(texts: Iterable[Sequence[str]], *, least: int = 1, most: int | None = None) -> Vocabulary:
    """The tokens that occur at least ``least`` times, the most frequent first; equal ones in alphabetical order."""
    counts = Counter(token for tokens in texts for token in tokens)
    kept = [token for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= least]
    return Vocabulary((PAD, UNKNOWN, *kept[:most]))


def data_folder() -> Path:
    """Where fetched data sets lie: ``$HIDDENSCOPE_DATA``, else ``~/.cache/hiddenscope``."""
    chosen = os.environ.get("HIDDENSCOPE_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "hiddenscope"
