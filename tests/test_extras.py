"""What comes with an extra says so in one line where it is not installed; nothing else asks for it."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging import markers

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
ENVIRONMENT = markers.default_environment()
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
    """Metadata as setuptools writes it: a requirement's own marker, and the extra's name."""
    own = [line.partition(";") for line in PROJECT["optional-dependencies"][name]]
    lines = [
        f"{what}; ({condition.strip()}) and extra == '{name}'" if condition else f"{what}; extra == '{name}'"
        for what, _, condition in own
    ]
    installed_with(monkeypatch, [*PROJECT["dependencies"], *lines, 'other>=1; extra == "others"'])
    monkeypatch.setattr(markers, "default_environment", lambda: {**ENVIRONMENT, "python_version": "3.13"})
    assert way_to(name) == "pip install " + " ".join(f'"{what}"' for what, _, _ in own)


def test_the_way_to_what_this_python_cannot_have(monkeypatch):
    installed_with(monkeypatch, ['river>=0.26; python_version >= "99" and extra == "river"'])
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.1")
    assert way_to("river") == "it comes with the extra river, which has nothing for Python 3.10.1"


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
