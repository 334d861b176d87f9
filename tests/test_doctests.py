"""Every example in a docstring runs and prints what it says; what is public has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import dualprop as dp
from dualprop.errors import MissingExtraError

FINDER = doctest.DocTestFinder()


def examples(thing: object, name: str | None = None) -> int:
    """How many lines of code the docstrings of a module, class or function show."""
    return sum(len(test.examples) for test in FINDER.find(thing, name))


def importable(name: str) -> bool:
    """Whether the library that a module is an adapter to is installed."""
    try:
        importlib.import_module(name)
    except MissingExtraError:
        return False
    return True


NAMES = [m.name for m in pkgutil.walk_packages(dp.__path__, "dualprop.") if m.name != "dualprop.__main__"]
SHOWING = [name for name in ("dualprop", *NAMES) if importable(name) and examples(importlib.import_module(name))]


@pytest.mark.parametrize("name", SHOWING)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert failed == 0


WITHOUT = {
    "what comes out of something shown": "Alignment Conversion DyadicState Result Step",
    "what takes a data set and a while": "compare resume resume_comparison load_net",
    "what `Dense` and its like are": "Synapse",
    "plain data": "Parallel Settings",
}
"""Public names without an example, and why."""


def test_what_is_public_has_an_example():
    public = {name: getattr(dp, name) for name in dir(dp) if not name.startswith("_")}
    without = {
        name
        for name, thing in public.items()
        if inspect.isclass(thing) or inspect.isfunction(thing)
        if not examples(thing, name) and not (inspect.isclass(thing) and issubclass(thing, Exception))
    }
    assert not without - {name for names in WITHOUT.values() for name in names.split()}
