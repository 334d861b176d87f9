"""The sabotages that are to turn the suite red: each can be made, and does."""

import pytest

from tests.sabotage import SABOTAGES, SOURCES


@pytest.mark.parametrize("name", SABOTAGES)
def test_the_line_is_there_once_and_is_spoilt(name):
    sabotage = SABOTAGES[name]
    assert (SOURCES / sabotage.file).read_text(encoding="utf-8").count(sabotage.old) == 1
    assert sabotage.new != sabotage.old


@pytest.mark.slow
@pytest.mark.parametrize("name", SABOTAGES)
def test_the_suite_turns_red(name):
    assert SABOTAGES[name].turns_red()
