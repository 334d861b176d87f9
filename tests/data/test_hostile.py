"""Every hostile file ends in its one line, in little time and with little memory, and starts nothing."""

from __future__ import annotations

import os
import re
import signal

import pytest
import torchvision.transforms.functional  # noqa: F401 - once, and not in every process

from dualprop import data
from dualprop.errors import DataError
from tests.data.hostile import CASES, READ, Case, write
from tests.limits import limited, within_limits
from tests.slow import but_slow

SLOW = (
    "image: WebP below the warning",
    "pickle: many objects",
    "pickle: deep lists",
    "pickle: deep tuples",
)


def outcome(case: Case, root) -> str:
    """What is said within limits: `READ`, an error's line, or what should never be."""
    return within_limits(lambda: loaded(case, root))


def loaded(case: Case, root) -> str:
    os.chdir(root)
    try:
        data.load(case.data, root, case.image_size)
    except DataError as error:
        return str(error)
    return READ


@limited
@pytest.mark.parametrize("name", but_slow(CASES, *SLOW))
def test_a_hostile_file_is_one_line(tmp_path, name, caplog):
    case = CASES[name]
    write(case, tmp_path)
    said = outcome(case, tmp_path)
    assert re.search(case.said, said), said
    assert said.isprintable()
    assert len(said) < 5000


@limited
def test_the_limits_are_real(tmp_path):
    """A test that cannot fail is none: a loop and 2 GiB are noticed."""
    import resource

    def endless(*_):
        signal.alarm(1)
        while True:
            pass

    def large(*_):
        assert resource.getrlimit(resource.RLIMIT_AS)[0] < 2**62
        return bytes(2 * 2**30)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", endless)
        assert outcome(CASES["idx: cut"], tmp_path) == "killed by SIGALRM"
        patch.setattr(data, "load", large)
        assert "MemoryError" in outcome(CASES["idx: cut"], tmp_path)
