import subprocess
import sys

import pytest
from PIL import Image

from dualprop.cli.data import app
from dualprop.errors import DataError


@pytest.fixture
def run(capsys, monkeypatch):
    """A command's output."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> str:
        assert app(list(map(str, arguments)), result_action="return_value") is None
        return capsys.readouterr().out

    return call


def test_list_shows_what_is_present_and_what_is_missing(fake_mnist, run):
    (fake_mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    lines = run("list", "--data-root", fake_mnist).splitlines()
    assert any(line.count("digits") and "present" in line for line in lines)
    assert any("missing: MNIST/raw/t10k-labels-idx1-ubyte" in line for line in lines)
    assert any("folder:PATH" in line for line in lines)


def test_list_takes_the_root_from_the_environment(monkeypatch, tmp_path, run):
    monkeypatch.setenv("DUALPROP_DATA", str(tmp_path))
    assert tmp_path.name in run("list")


def test_info_shows_what_is_in_a_data_set(fake_mnist, run):
    output = run("info", "mnist", "--data-root", fake_mnist)
    for fact in ("20 to train on, 10 to test on", "1 × 28 × 28", "0.5000", "verified"):
        assert fact in output
    last = [cell.strip() for cell in output.splitlines()[-2].strip("│").split("│")]
    assert last == ["9", "9", "2", "1"]


def test_info_of_digits_says_that_nothing_is_known_to_compare_with(run):
    assert "no official one is known" in run("info", "digits")


def test_fetch_says_where_the_data_are(fake_mnist, offline, run):
    assert run("fetch", "mnist", "--data-root", fake_mnist).startswith("mnist: complete in ")


def test_names_in_brackets_are_shown_as_they_are(tmp_path, run):
    for part in ("train", "test"):
        (tmp_path / part / "[bold]").mkdir(parents=True)
        Image.new("L", (2, 3)).save(tmp_path / part / "[bold]" / "a.png")
    output = run("info", f"folder:{tmp_path}", "--image-size", 2)
    assert "[bold]" in output
    assert "1 × 2 × 2" in output


def test_errors_are_left_to_the_main_program(tmp_path, run):
    with pytest.raises(DataError, match="mnist: no MNIST/raw"):
        run("info", "mnist", "--data-root", tmp_path)


def test_importing_the_commands_imports_no_torch():
    code = "import sys, dualprop.cli.data; print({'torch', 'torchvision', 'sklearn', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
