"""Runs for the Hugging Face Hub, without a network: what is written, and the same outputs in a new process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("huggingface_hub")

import dualprop as dp
from dualprop import hub


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somewhere") / "run"
    settings = dp.Settings(rule="kp-dp", hidden=(12,), epochs=1, alignment=False, rule_settings={"beta": 0.5})
    dp.train(settings, folder, progress=False)
    return folder


@pytest.mark.slow
def test_the_outputs_are_the_same_in_a_new_process(run, tmp_path):
    saved = hub.save_pretrained(run, tmp_path / "saved")
    x = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    code = """
import sys, torch
from dualprop.hub import from_pretrained
x = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
print(from_pretrained(sys.argv[1])(x).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == dp.load_net(run)(x).tolist()


def test_what_is_shared_names_no_place_and_holds_no_pickle(run, tmp_path):
    settings = json.loads((run / "settings.json").read_text())
    before = json.dumps(
        {**settings, "data_root": "/home/me/data", "init_from": None, "data": "folder:/home/me/cats"}
    )
    copy = tmp_path / "run"
    copy.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    (copy / "settings.json").write_text(before)
    saved = hub.save_pretrained(copy, tmp_path / "saved")
    names = sorted(file.name for file in saved.iterdir())
    assert names == ["README.md", "best.safetensors", "resolved.json", "result.json", "settings.json"]
    for file in saved.iterdir():
        assert b"/home/me" not in file.read_bytes()
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(run.parent).encode() not in file.read_bytes()
    card = (saved / "README.md").read_text()
    assert "library_name: dualprop" in card
    assert "mlp on folder:cats, trained by kp-dp" in card
    accuracy = json.loads((run / "result.json").read_text())["test_accuracy"]
    assert f"accuracy {accuracy:.2%}" in card


class Hub:
    """One that keeps folders."""

    def __init__(self, place):
        self.place, self.made = place, []

    def __call__(self, token=None):
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.made.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        import shutil

        shutil.copytree(folder_path, self.place / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(self, repo_id, *, allow_patterns, **options):
        assert set(allow_patterns) >= {"settings.json", "best.safetensors"}
        assert options == {"revision": "main"}
        return str(self.place / repo_id)


def test_up_and_down_again(run, tmp_path, monkeypatch):
    place = Hub(tmp_path)
    monkeypatch.setattr(hub, "HfApi", place)
    monkeypatch.setattr(hub, "snapshot_download", place.snapshot_download)
    monkeypatch.chdir(tmp_path)
    assert hub.push_to_hub(run, "me/digits", private=True) == "https://hub/me/digits/commit/1"
    assert place.made == [("me/digits", True, True)]
    (tmp_path / "me").rename(tmp_path / "there")
    place.place = tmp_path / "there" / ".." / "there"
    (tmp_path / "there" / "me").mkdir()
    (tmp_path / "there" / "digits").rename(tmp_path / "there" / "me" / "digits")
    net = hub.from_pretrained("me/digits", revision="main")
    x = torch.rand(3, 64)
    assert torch.equal(net(x), dp.load_net(run)(x))


def test_what_is_no_finished_run(run, tmp_path):
    with pytest.raises(dp.DualpropError, match="not a run folder"):
        hub.save_pretrained(tmp_path, tmp_path / "saved")
    with pytest.raises(dp.DualpropError, match=r"exists; choose another folder$"):
        hub.save_pretrained(run, tmp_path)
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("settings.json", "resolved.json", "best.safetensors"):
        (copy / name).write_bytes((run / name).read_bytes())
    with pytest.raises(dp.DualpropError, match="not finished"):
        hub.save_pretrained(copy, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(dp.DualpropError, match="not a run folder"):
        hub.from_pretrained(tmp_path / "empty")
