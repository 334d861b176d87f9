"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import dualprop

MODULES = ["dualprop"] + [
    module.name
    for module in pkgutil.walk_packages(dualprop.__path__, "dualprop.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert failed == 0


SYNAPSES = "nets.synapses.dense nets.synapses.conv nets.synapses.affine nets.synapses.pools"
NETS = f"nets nets.net nets.potentials nets.losses nets.zoo {SYNAPSES}"
ENGINE = f"{NETS} engines.dyads.schedules registry rules rules.base rules.dual_prop rules.diagnostics"


@pytest.mark.parametrize("name", ENGINE.split())
def test_the_engine_is_shown_by_examples(name):
    module = importlib.import_module(f"dualprop.{name}")
    assert sum(len(test.examples) for test in doctest.DocTestFinder().find(module)) > 0
