"""`--import FILE.py`: a Python file of the user's own that registers rules, nets, data sets or optimizers."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from dualprop.errors import DualpropError

OPTION = "--import"

FILES: list[Path] = []
"""Those that have been run in this process."""


def imported(words: list[str]) -> list[str]:
    """Run the files that the words of a command line name, and return the other words.

    It comes before all else: what a file registers has options of its own.

    Raises:
        DualpropError: for a file that is missing, no Python, or that raises an error.
    """
    left = list(words)
    while found := [k for k, word in enumerate(left) if word == OPTION or word.startswith(f"{OPTION}=")]:
        at = found[0]
        _, equals, name = left.pop(at).partition("=")
        if not equals:
            if at == len(left):
                raise DualpropError(f"{OPTION}: must name a Python file")
            name = left.pop(at)
        _run(Path(name))
    return left


def again(files: Sequence[Path]) -> None:
    """Run files of the user's in a process that another one has started, and say what is said as there."""
    from dualprop.cli import spoken

    spoken()
    for file in files:
        _run(file)


def _run(file: Path) -> None:
    """Import a file under its own name, as if its folder came last on Python's path."""
    if file.suffix != ".py" or not file.is_file():
        raise DualpropError(f"{OPTION}={str(file)!r}: must be a Python file that is there, NAME.py")
    if file.stem in sys.modules:
        raise DualpropError(
            f"{OPTION}={str(file)!r}: a module {file.stem!r} is loaded already; give it another name"
        )
    path = file.resolve()
    spec = importlib.util.spec_from_file_location(file.stem, path)
    assert spec is not None, "its name says that it is Python"
    assert spec.loader is not None, "its name says that it is Python"
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[file.stem]
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {own[-1]}" if own else ""
        raise DualpropError(f"{OPTION}={str(file)!r}{where}: {type(error).__name__}: {error}") from None
    FILES.append(path)
