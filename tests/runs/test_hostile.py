"""Every run folder that is not as ours are ends in its one line, in little time and with little memory."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from dualprop import resume, train
from dualprop.errors import DualpropError
from tests.limits import limited, within_limits
from tests.runs.hostile import CASES, make

READ = "read"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    make(folder)
    return folder


@limited
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_one_line(name, sound, tmp_path):
    case = CASES[name]
    shutil.copytree(sound, tmp_path / "its")
    case.change(tmp_path / "its")

    def read():
        os.chdir(tmp_path)
        try:
            case.read(tmp_path / "its")
        except DualpropError as error:
            return str(error)
        return READ

    said = within_limits(read)
    assert re.search(case.said, said), said
    assert said.isprintable()
    assert len(said) < 5000
    assert not (tmp_path / "PWNED").exists()


def test_the_folders_are_sound_before(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "its")
    (tmp_path / "its" / "mine.toml").write_text("lr = 0.5")
    for case in {case.read for case in CASES.values()}:
        case(tmp_path / "its")


def test_no_link_in_a_folder_is_written_through(quick, tmp_path):
    """Whatever a run writes, and whatever its drafts were once called."""
    train(quick, tmp_path / "run", progress=False)
    (tmp_path / "run" / "result.json").unlink()
    names = [path.name for path in (tmp_path / "run").iterdir()]
    drafts = [f".{name}.tmp" for name in (*names, "result.json")]
    targets = {}
    for number, name in enumerate([*drafts, "result.json", "best.safetensors", "metrics.jsonl"]):
        target = targets[name] = tmp_path / f"precious-{number}"
        path = tmp_path / "run" / name
        target.write_bytes(path.read_bytes() if path.exists() else b"mine")
        path.unlink(missing_ok=True)
        if name != "result.json":
            path.symlink_to(target)
    before = {name: target.read_bytes() for name, target in targets.items()}
    resume(tmp_path / "run", progress=False)
    assert {name: target.read_bytes() for name, target in targets.items()} == before
