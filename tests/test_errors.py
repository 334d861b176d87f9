"""What comes from files is shown, and never interpreted by the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualprop.errors import DataError, UnknownNameError, printable
from dualprop.registry import Registry


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a class, β = 1\N{EM DASH}ok", "a class, β = 1\N{EM DASH}ok"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("not \udcff UTF-8", r"not \udcff UTF-8"),
    ],
)
def test_what_is_not_printable_is_shown_by_its_number(text, shown):
    assert printable(text) == shown
    assert str(DataError(f"{text}: damaged")) == f"{shown}: damaged"


@given(st.text())
def test_all_of_it_is_printable_and_can_be_written(text):
    assert printable(text).isprintable()
    printable(text).encode()


def test_what_is_long_loses_its_middle():
    shown = printable("a" * 10**6 + "b" * 10**6)
    assert len(shown) < 5000
    assert (shown[0], shown[-1]) == ("a", "b")


def test_an_unknown_name_is_shown_too():
    with pytest.raises(UnknownNameError) as error:
        Registry("rule", {"\x1b[2J": 1})["x\x1b[2J"]
    assert str(error.value).isprintable()
