"""The package that others install: what is in it, that it works without the checkout, what its types say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dualprop as dp

ROOT = Path(__file__).parents[1]
LARGEST = 10**6
"""Bytes of the wheel."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, built by the tools of this environment alone."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


@pytest.mark.slow
def test_the_wheel_has_all_that_the_checkout_has_and_no_more(built):
    wheel, _ = built
    assert wheel.stat().st_size < LARGEST
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    kept = {
        f"dualprop/{file.relative_to(ROOT / 'src' / 'dualprop').as_posix()}"
        for file in (ROOT / "src" / "dualprop").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert names == kept


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(built, tmp_path):
    wheel, source = built
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    for name in ("README.md", "LICENSE", "pyproject.toml", "src/dualprop/py.typed"):
        assert (unpacked / name).is_file()
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path / "again",
        unpacked,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (again,) = (tmp_path / "again").glob("*.whl")
    contents = [
        {name: file.read(name) for name in file.namelist() if not name.endswith("RECORD")}
        for file in map(zipfile.ZipFile, (wheel, again))
    ]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(built, tmp_path):
    """One with this one's libraries, and nothing of the checkout."""
    wheel, _ = built
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    import numpy

    for entry in Path(numpy.__file__).parents[1].iterdir():
        if "dualprop" not in entry.name:
            (libraries / entry.name).symlink_to(entry)
    (site / "libraries.pth").write_text(f"{libraries}\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = ["train", "--hidden", "8", "--epochs", "1", "--no-alignment", "--run", "r"]
    for command in (
        ["--version"],
        words,
        ["reproduce"],
        ["report", "r"],
        ["train", "--recipe", "mnist-mlp", "--help"],
    ):
        done = subprocess.run(
            [python, "-m", "dualprop", *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [python, "-c", "import dualprop; print(dualprop.__file__)"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(tmp_path))


def test_the_stub_names_what_is_there():
    """`__init__.pyi` is what the package imports by; a checker of types reads the same."""
    tree = ast.parse((Path(dp.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    names = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == set(dp.__all__)
    assert all(hasattr(dp, name) for name in names)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names), "said again, so that it is public"


def test_importing_it_imports_next_to_nothing():
    code = (
        "import sys; known = set(sys.modules); import dualprop; print(len(set(sys.modules) - known), *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    number, *loaded = done.stdout.split()
    assert not {"torch", "numpy", "pydantic", "rich", "cyclopts"} & set(loaded)
    assert int(number) < 60


@pytest.mark.slow
def test_a_checker_of_types_knows_the_package(tmp_path):
    (tmp_path / "mine.py").write_text(
        """import torch
import dualprop as dp

net = dp.nets.mlp([4, 8, 3])
rule = dp.DualProp(net, loss="mse", alpha=0.5, beta=1.0, schedule=dp.Sweep())
step: dp.Step = rule.backward(torch.randn(5, 4), torch.arange(5) % 3)
loss: torch.Tensor = step.loss
result: dp.Result = dp.train(dp.Settings(rule="dp"), "runs/mine")
wrong: int = dp.load_net("runs/mine")
"""
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count("error:") == 1, done.stdout
    assert 'mine.py:9: error: Incompatible types in assignment (expression has type "Net"' in done.stdout
