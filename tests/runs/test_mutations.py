"""Run folders damaged at random are read or refused in one line; `mutations.py` has how, and tries more."""

from __future__ import annotations

import shutil

import pytest

from tests.runs import mutations
from tests.runs.mutations import READERS, sound, tried
from tests.slow import but_slow

KINDS = sorted(READERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    sound(folder)
    return folder


@pytest.mark.parametrize("kind", but_slow(KINDS, *(set(KINDS) - {"state", "metrics"})))
def test_damaged_files_are_read_or_refused(kind, folder, tmp_path):
    for number in range(18):
        shutil.copytree(folder, tmp_path / "its")
        tried(kind, 1000 * KINDS.index(kind) + number, tmp_path / "its")
        shutil.rmtree(tmp_path / "its")


def test_what_is_neither_is_noticed(folder, tmp_path, monkeypatch):
    def wrong(path):
        raise KeyError("x")

    monkeypatch.setitem(mutations.READERS, "recipe", ("mine.toml", (wrong,)))
    shutil.copytree(folder, tmp_path / "its")
    with pytest.raises(KeyError):
        tried("recipe", 0, tmp_path / "its")
