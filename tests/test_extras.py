"""What comes with an extra says so in one line where it is not installed; nothing else asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dualprop as dp
from dualprop.errors import MissingExtraError
from dualprop.extras import extra

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
    assert done.stdout.startswith(f"MissingExtraError {ADAPTERS[adapter]}")
    assert done.stdout.endswith(f'not installed; pip install "dualprop[{adapter}]"\n')


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
