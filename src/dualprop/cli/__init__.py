"""The command line: `dualprop train | compare | bench | data`.

Modules here import nothing heavy at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys

import typer

from dualprop.cli import data
from dualprop.cli.bench import bench
from dualprop.cli.compare import compare
from dualprop.cli.train import train
from dualprop.errors import DualpropError, Interrupted
from dualprop.training.malloc import keep_memory
from dualprop.training.processes import torchrun

STOPPED = 130  # the exit code after Ctrl-C

app = typer.Typer(
    help="Train networks with dual propagation, and with the methods it is compared with.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(compare)
app.command()(bench)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; a wrong argument is one line on stderr and exit code 2."""
    keep_memory()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("dualprop").setLevel(logging.INFO)
    code = 0
    try:
        code = app(standalone_mode=False) or 0
        if code == STOPPED:  # Ctrl-C where there was no run to save
            _say("stopped")
    except Interrupted as stopped:
        code = STOPPED
        if torchrun.rank() == 0:  # the others say the same
            _say(str(stopped))
    except typer.TyperException as error:
        code = 2
        if message := error.format_message():  # none where the help has been shown instead
            _say(f"error: {message}")
    except (DualpropError, OSError) as error:  # a disk that is full or may not be written is no bug of ours
        code = 2
        _say(f"error: {error}")
    sys.exit(code)


def _say(what: str) -> None:
    """One line on stderr, with the number of a process that does not lead."""
    who = f"dualprop (process {torchrun.rank()})" if torchrun.rank() else "dualprop"
    print(f"{who}: {' '.join(what.split())}", file=sys.stderr)
