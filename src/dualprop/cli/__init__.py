"""The command line: `dualprop train | compare | stream | reproduce | report | bench | eval | predict | data`.

A command's module is imported when it is asked for, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.exceptions import UnusedCliTokensError

import dualprop
from dualprop.cli._help import Columns
from dualprop.cli._imports import imported
from dualprop.errors import DualpropError, Interrupted, printable

_OF_MEMORY = re.compile(r"out of memory|allocate memory|not enough memory")
"""What PyTorch says on its devices."""
STOPPED = 130  # the exit code after Ctrl-C
UNREAD = 1  # after a pipe that nobody reads any more; rich has the same
HELP = ("--help", "-h")

app = App(
    name="dualprop",
    help="Train networks with dual propagation, and with the methods it is compared with.\n\n"
    "Anywhere in a command, --import FILE.py first runs a Python file of your own that registers rules "
    "(dualprop.RULES), nets (dualprop.NETS) or data sets (dualprop.data.DATASETS); a rule's settings are options.",
    version=dualprop.__version__,
    help_flags=HELP,
    help_format="plaintext",
    help_formatter=Columns(),
)
for command, purpose in {
    "train": "Train a net with one rule; test the weights with the best validation accuracy once, at the end.",
    "compare": "Train several rules from several seeds; end with a table, learning curves and gradient alignments."
    "\n\nA rule's own settings go to the rules that have them.",
    "stream": "Learn from a stream: a frame at each tick, no epochs, no batches, no resets.\n\n"
    "SOURCE is a data set's name, permuted-inputs, permuted-labels, gradual, folder:PATH, river:NAME, or - for "
    "lines of JSON or CSV on standard input, as in: tail -f log | dualprop stream - . Ctrl-C saves and stops.",
    "reproduce": "Make a paper's table, cell by cell, and go on with it.\n\n"
    "Without options it is the paper's full setting; how long that takes here is said first. What is there is not "
    "made again. Any setting may be given; cells with other settings than the table's are not compared.",
    "report": "Put records beside the published numbers: a page, the same as Markdown and CSV.\n\n"
    "Runs are known by their settings, not by their folders' names. Every published number has a row, with a "
    "verdict by a rule that the report states.",
    "bench": "Measure seconds per step and peak memory of every rule beside back-propagation.\n\n"
    "A rule's steps alternate with those of bp; what is compared is the median of their ratios. The machine's "
    "ceilings are measured, too. For numbers worth keeping, let nothing else run.",
    "eval": "Test a run's best weights on its test data again, or on other data.",
    "predict": "Say what a run's net makes of your images or numbers, as CSV.\n\n"
    "Images are brought to the net's size and colours. Numbers are taken as they were trained on; for a net that "
    "was trained on images they are pixels, in [0, 1] or, in an array, uint8.",
    "completion": "Print a script that completes commands, options and names in a shell.\n\n"
    'For bash: eval "$(dualprop completion bash)"; to keep it, put that line into ~/.bashrc.',
}.items():
    app.command(f"dualprop.cli.{command}:{command}", name=command, help=purpose)
app.command("dualprop.cli.data:app", name="data", help="List, fetch and look into data sets.")


class _Printable(logging.Formatter):
    """Whatever a log record quotes from files is shown, never interpreted."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, error: Any) -> str:
        return "\n".join(map(printable, super().formatException(error).split("\n")))


def main() -> None:
    """Run the command line; a wrong argument is one line on stderr and exit code 2, a warning one line."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed: no file that is opened from here on shall be taken for it
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    spoken()
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            code = _run(sys.argv[1:])
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read has had enough, as `head` has
            code = UNREAD
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
    sys.exit(code)


def spoken() -> None:
    """Say what is logged, a line each, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("dualprop").setLevel(logging.INFO)


def _run(words: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        words = imported(words)
        command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
        if command != app.help_print and words[0] != "bench":  # which measures loops as anyone's are
            from dualprop.training.malloc import keep_memory

            keep_memory()
        command(*bound.args, **bound.kwargs)
    except KeyboardInterrupt:  # where there was no run to save
        return _say("stopped", STOPPED)
    except Interrupted as stopped:
        return STOPPED if _rank() else _say(str(stopped), STOPPED)  # the others say the same
    except BrokenPipeError:
        raise
    except UnusedCliTokensError as error:
        extra, path = (" ".join(each or ()) for each in (error.unused_tokens, error.command_chain))
        return _say(f"error: {extra!r}: {path} takes no such word; --help says what it takes", 2)
    except (CycloptsError, DualpropError, OSError) as error:  # a disk that may not be written is no bug of ours
        return _say(f"error: {error}", 2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _OF_MEMORY.search(str(error)):
            raise
        return _say(f"error: out of memory ({error or type(error).__name__})", 2)
    helped = command == app.help_print and not set(HELP) & set(words)
    return 2 if helped else 0  # help that nobody asked for: there was no command


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """One line on stderr for a warning, without the place in our source that it comes from."""
    _say(f"warning: {message}", 0)


def _say(what: str, code: int) -> int:
    """One line on stderr, with the number of a process that does not lead."""
    who = f"dualprop (process {_rank()})" if _rank() else "dualprop"
    print(f"{who}: {printable(' '.join(what.split()))}", file=sys.stderr)
    return code


def _rank() -> int:
    """The number of this process among those of torchrun."""
    from dualprop.training.processes import torchrun

    return torchrun.rank()
