"""What can go wrong, as a tree.

HiddenscopeError
├── RunNotFoundError       no recorded run where one was expected
├── RunFormatError         a run written by a newer hiddenscope, or not a run at all
├── RunLockedError         a second writer on a run that already has one
├── RecordingError         the monitor cannot record: no recurrent layer, a probe the model rejects, another probe
└── MissingExtraError      an optional dependency is absent; the message has the install line

RecordingWarning           a UserWarning: something is not recorded; the training goes on

Bad values are plain ``ValueError``; the classes above exist because a caller may want to catch them.
"""


class HiddenscopeError(Exception):
    """Base of every error that hiddenscope raises on purpose and that is not a plain bad value."""


class RunNotFoundError(HiddenscopeError, FileNotFoundError):
    """No recorded run was found at, or below, a location."""


class RunFormatError(HiddenscopeError):
    """A run cannot be read: it is damaged, or a newer version of hiddenscope wrote it."""


class RunLockedError(HiddenscopeError):
    """Another process is already writing to this run."""


class RecordingError(HiddenscopeError, ValueError):
    """What was asked for cannot be recorded from this model with this probe."""


class MissingExtraError(HiddenscopeError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed; pip install 'hiddenscope[{extra}]'")


class RecordingWarning(UserWarning):
    """Something was not recorded, or is recorded in a way that deserves a look. The training is not affected."""
