"""``python -m hiddenscope`` is the command ``hiddenscope``."""

from hiddenscope.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
