"""The command ``hiddenscope``: one table of subcommands, each loaded only when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from hiddenscope._version import __version__
from hiddenscope.errors import HiddenscopeError


class Command(NamedTuple):
    """Where a subcommand lives. Its module has ``add_arguments(parser)`` and ``run(args) -> int``."""

    module: str
    summary: str


COMMANDS = {
    "analyze": Command("hiddenscope.analyses.command", "make every analysis of a run and store it there"),
    "dashboard": Command("hiddenscope.dashboard.command", "serve the live page for the runs below a folder"),
    "demo": Command("hiddenscope.experiments.demo", "train an LSTM on real data and watch it live"),
    "experiment": Command("hiddenscope.experiments.command", "run an experiment and write its tables and figures"),
    "export": Command("hiddenscope.exporting", "write a layer of a run to a netCDF, Zarr or npz file"),
    "info": Command("hiddenscope.listing", "list the runs below a folder"),
    "prune": Command("hiddenscope.pruning", "free the space of superseded epochs and replaced results"),
    "report": Command("hiddenscope.dashboard.report", "write one run as one self-contained HTML file"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; expected failures become one line on standard error and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="hiddenscope", description="A scope on the hidden states of recurrent networks while they train."
    )
    parser.add_argument("--version", action="version", version=f"hiddenscope {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.summary, description=command.summary.capitalize() + ".")
        if name == wanted:  # only the module of the command that was typed is imported
            module = importlib.import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130
    except (HiddenscopeError, ValueError, OSError) as error:
        if os.environ.get("HIDDENSCOPE_TRACEBACK"):
            raise
        print(f"hiddenscope {args.command}: {error}", file=sys.stderr)
        return 2
