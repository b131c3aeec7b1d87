"""Sentences from movie reviews, each with the mean sentiment that twenty people gave it, from -4 to 4.

10,605 snippets, from the files of vaderSentiment 3.3.2 (Hutto and Gilbert 2014, ICWSM; MIT). They are fetched once by
``python -m hiddenscope.experiments.datasets.fetch reviews``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hiddenscope.errors import HiddenscopeError
from hiddenscope.experiments.datasets.text import data_folder

FILE = "movieReviewSnippets_GroundTruth.txt"
LEAST_SCORE = 0.5
"""Snippets of a smaller absolute score are neither good nor bad."""


@dataclass(frozen=True)
class Reviews:
    """Texts, and the sentiment of each, shape (text,)."""

    texts: tuple[str, ...]
    scores: npt.NDArray[np.float64]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """1 for positive, 0 for negative, -1 for neither."""
        return np.where(self.scores > LEAST_SCORE, 1, np.where(self.scores < -LEAST_SCORE, 0, -1))


def load_reviews(folder: Path | None = None) -> Reviews:
    """Read the snippets.

    Args:
        folder: where `FILE` lies; default ``reviews`` in the data folder.

    Raises:
        HiddenscopeError: the file is not there, with the command that fetches it, or a line is not a snippet.
    """
    path = (data_folder() / "reviews" if folder is None else folder) / FILE
    if not path.is_file():
        raise HiddenscopeError(
            f"the movie reviews are not in {path.parent}; fetch them once with: "
            "python -m hiddenscope.experiments.datasets.fetch reviews"
        )
    texts, scores = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split("\t", 2)
        try:
            scores.append(float(parts[1]))
            texts.append(parts[2].replace("''", '"'))
        except (IndexError, ValueError):
            raise HiddenscopeError(
                f"line {number} of {path} should be a number, a score and a text between tabs, got {line[:60]!r}"
            ) from None
    return Reviews(tuple(texts), np.array(scores))
