"""Random lists of options end in a result or in one line; `fuzz.py` has how, and tries more."""

from __future__ import annotations

import random

import pytest

from tests.cli.fuzz import drawn, tried
from tests.slow import but_slow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", but_slow("0123", *"123"))
def test_lists_of_options_are_run_or_refused(seed, tmp_path):
    rng = random.Random(f"suite {seed}")
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        tried(drawn(rng), tmp_path / str(number))


def test_what_is_neither_is_noticed(tmp_path, monkeypatch):
    from dualprop import cli

    def wrong():
        raise KeyError("x")

    monkeypatch.setattr(cli, "main", wrong)
    with pytest.raises(KeyError):
        tried(["train"], tmp_path)
