"""Files damaged at random are read or refused in one line; `mutations.py` has how, and tries more."""

from __future__ import annotations

import pytest

from tests.data.mutations import SOUND, tried

NAMES = sorted(SOUND)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_sound_before(tmp_path, name):
    content, read = SOUND[name]
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on files that it goes on to read or refuse
@pytest.mark.parametrize("first", range(10))
def test_damaged_files_are_read_or_refused(tmp_path, first):
    said = [tried(NAMES[number % len(NAMES)], number, tmp_path) for number in range(first, 200, 10)]
    assert "refused" in said


def test_what_is_neither_is_noticed(tmp_path, monkeypatch):
    def wrong(path):
        raise KeyError("x")

    monkeypatch.setitem(SOUND, "batch3", (b"sound", wrong))
    with pytest.raises(KeyError):
        tried("batch3", 0, tmp_path)
