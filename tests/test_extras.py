"""What comes with an extra says so in one line where it is not installed; nothing else asks for it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import dualprop as dp
from dualprop.errors import MissingExtraError
from dualprop.extras import extra, way_to
from dualprop.files import tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADAPTERS = {
    "river": "river",
    "sklearn": "sklearn",
    "lightning": "lightning",
    "hub": "huggingface_hub",
    "onnx": "onnx",
    "wandb": "wandb",
    "mlflow": "mlflow",
}
WITHOUT = """
import sys
for name in {names!r}:
    sys.modules[name] = None  # as if it were not installed
try:
    import dualprop.{adapter}
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_missing_library_is_one_line_with_the_way_to_get_it(adapter):
    names = [ADAPTERS[adapter], f"{ADAPTERS[adapter]}.base"]
    code = WITHOUT.format(names=names, adapter=adapter)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = f"MissingExtraError dualprop.{adapter}: needs {ADAPTERS[adapter]}, not installed; {way_to(adapter)}\n"
    assert done.stdout == line


def installed_with(monkeypatch, lines):
    """As if the metadata of this package said so."""
    monkeypatch.setattr(metadata, "requires", lambda name: lines if name == "dualprop" else None)


@pytest.mark.parametrize("name", [*ADAPTERS, "distributed"])
def test_the_way_to_an_extra_is_what_the_project_says_it_brings(name, monkeypatch):
    """Of metadata as setuptools writes it."""
    own = PROJECT["optional-dependencies"][name]
    lines = [
        *PROJECT["dependencies"],
        *(f'{line}; extra == "{name}"' for line in own),
        "other>=1; extra == 'others'",
    ]
    installed_with(monkeypatch, lines)
    assert way_to(name) == "pip install " + " ".join(f'"{line}"' for line in own)


def test_the_way_from_a_checkout_that_is_not_installed(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", none)
    assert way_to("hub") == "it comes with the extra hub"


def test_nowhere_is_this_package_asked_of_the_index():
    """Its name is not ours there: extras are had from a checkout."""
    wrong = re.compile(r"(pip install|Needs the extra)[^\n]*\bdualprop\[")
    sources = [
        file
        for place in ("src", "docs", "examples", "benchmarks", "paper", ".github")
        for file in (ROOT / place).rglob("*")
        if file.suffix in {".py", ".md", ".toml", ".yml", ".jinja"} and "_build" not in file.parts
    ]
    for file in [*sources, *ROOT.glob("*.md"), ROOT / "Makefile"]:
        assert not wrong.search(file.read_text(encoding="utf-8")), file


def test_every_adapter_has_an_extra_of_its_name():
    source = Path(dp.__file__).parent
    adapters = {file.stem for file in source.glob("*.py") if "with extra(" in file.read_text(encoding="utf-8")}
    assert adapters - {"extras"} == set(ADAPTERS)
    assert set(ADAPTERS) <= set(PROJECT["optional-dependencies"])
    (together,) = PROJECT["optional-dependencies"]["adapters"]
    assert set(together.removeprefix("dualprop[").removesuffix("]").split(",")) == set(ADAPTERS)


def test_an_error_of_another_kind_stays():
    with pytest.raises(ImportError, match="cannot import name") as error, extra("river"):
        from dualprop import no_such_thing  # noqa: F401
    assert not isinstance(error.value, MissingExtraError)
    assert issubclass(MissingExtraError, dp.DualpropError)
