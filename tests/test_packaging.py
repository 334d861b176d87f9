"""The package that others install: what is in it, that it works without the checkout, what its types say."""

from __future__ import annotations

import ast
import os
import shutil
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


@pytest.fixture(scope="module")
def alone(built, tmp_path_factory):
    """The Python of an environment with the wheel, this one's libraries, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(built[0]).extractall(site)
    libraries = folder / "libraries"
    libraries.mkdir()
    import numpy

    for entry in Path(numpy.__file__).parents[1].iterdir():
        if "dualprop" not in entry.name:
            (libraries / entry.name).symlink_to(entry)
    (site / "libraries.pth").write_text(f"{libraries}\n")
    return folder / "venv" / "bin" / "python"


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(alone, tmp_path):
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
            [alone, "-m", "dualprop", *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [alone, "-c", "import dualprop; print(dualprop.__file__)"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(alone.parents[1]))


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
    """No library but the one that puts off the others."""
    code = "import sys; known = set(sys.modules); import dualprop; print(*set(sys.modules) - known)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"dualprop", "lazy_loader"}
    assert [name for name in loaded if name.startswith("dualprop.")] == []
    assert len(loaded) < 60


def types_of(script, python, folder):
    """What mypy says of a script where the library is what `python` has installed: lines with errors, and all."""
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    command += ["--config-file", os.devnull, "--cache-dir", folder / "cache", script]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line], done.stdout


@pytest.mark.slow
def test_a_checker_of_types_knows_the_package(alone, tmp_path):
    """As it is installed: everything that a user meets has a type, and what is wrong is found."""
    pytest.importorskip("mypy")
    script = ROOT / "tests" / "user.py"
    wrong = [n for n, line in enumerate(script.read_text().splitlines(), 1) if line.endswith("# wrong")]
    found, said = types_of(shutil.copy(script, tmp_path), alone, tmp_path)
    assert found == wrong, said
