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
from dualprop.malloc import keep_memory

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
    try:
        app()
    except Interrupted as stopped:
        print(f"dualprop: {stopped}", file=sys.stderr)
        sys.exit(130)
    except (DualpropError, OSError) as error:  # a disk that is full or may not be written is no bug of ours
        print(f"dualprop: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
