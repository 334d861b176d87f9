"""Every block of code in the README and on the site's pages runs, and every command is one that there is."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import dualprop as dp
from dualprop.cli import app
from dualprop.data import Dataset, Source, Split
from dualprop.files import tomllib
from dualprop.registry import Registry
from dualprop.runs.settings import Settings
from dualprop.training.experiment import build

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = ("_build", "api", "gathered")  # by `make docs`
PATHS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in PATHS
    if path.relative_to(ROOT).parts[1:2] not in [(made,) for made in MADE]
}
FENCED = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
CODE = ("python", "{code-cell} ipython3")
COMMANDS = ("sh", "console")
TAKES = {"dualprop.river": "river", "from IPython": "IPython"}
ABSENT = [words for words, library in TAKES.items() if importlib.util.find_spec(library) is None]
"""What a block says that takes a library which is not installed: it is left out."""


def blocks(text: str, languages: tuple[str, ...]) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    return [block for _, language, block in FENCED.findall(text) if language.strip() in languages]


def code(text: str) -> str:
    """What a page runs here, from its first block to its last; options of a cell are no code."""
    here = [block for block in blocks(text, CODE) if not any(name in block for name in ABSENT)]
    return "\n".join(re.sub(r"^:.*\n", "", block, flags=re.MULTILINE) for block in here)


def commands(text: str) -> list[str]:
    """A page's lines of commands, without prompts and remarks."""
    lines = "\n".join(blocks(text, COMMANDS)).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.strip()]


def _ten_lines(names: dict[str, Any]) -> None:
    assert len(blocks(PAGES["README.md"], ("python",))[0].strip().splitlines()) <= 12
    assert min(dp.alignment(names["rule"], names["x"], names["y"]).cosine) > 0.9


def _data(names: dict[str, Any]) -> None:
    assert 0 <= names["result"].test_accuracy <= 1
    assert "test accuracy %" in names["report"].markdown()


def _tables(names: dict[str, Any]) -> None:
    made, text = names["made"].cells, PAGES["docs/tables.md"]
    assert [cell.path.name for cell in made] == [f"dp-beta{b}-epochs1-seed0" for b in ("0.1", "1")]
    assert all(cell.record.complete for cell in made)
    assert set(re.findall(r"`([\w-]+)`", text.split("## ")[1])) >= set(names["tables"].shipped())


def _streams(names: dict[str, Any]) -> None:
    assert names["judged"].frame == 7
    assert names["again"].ticks == names["learner"].ticks == 3


def _recipe(names: dict[str, Any]) -> None:
    assert names["settings"].rule_settings == {"beta": 0.2}


def _devices(names: dict[str, Any]) -> None:
    text = PAGES["docs/devices.md"]
    assert all(f"`{kind.__name__}(" in text for kind in dp.devices.CHANNELS.values())
    assert all(name in text for name in dp.devices.PRESETS)
    assert names["rule"].devices is not None
    (file,) = blocks(text, ("toml",))
    settings = {"optimizer": "pulsed-sgd", "devices": tomllib.loads(file), "hidden": (8,), "alignment": False}
    dp.train(dp.Settings(**settings, epochs=1), "devices", progress=False)


HOLDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "README.md": _ten_lines,
    "docs/data.md": _data,
    "docs/tables.md": _tables,
    "docs/streaming.md": _streams,
    "docs/devices.md": _devices,
    "docs/runs.md": _recipe,
}
"""What is true once a page has run."""

LONG = ("docs/tutorials/", "docs/project/", "docs/reference/rules")
"""Whole trainings, and every rule; `make docs` runs them as well."""

ELSEWHERE = ("docs/adapters.md",)
"""In `test_adapters_page.py`, for it takes other libraries."""

RUN = [
    pytest.param(name, marks=pytest.mark.slow) if name.startswith(LONG) else name
    for name, text in PAGES.items()
    if code(text) and name not in ELSEWHERE
]


@pytest.fixture
def _as_before(tmp_path, monkeypatch):
    """In a folder of its own, with registries and PyTorch's default type as they are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    top = [getattr(dp, name) for name in dp.__all__]
    rooms = [thing for thing in top if isinstance(thing, ModuleType)]
    offered = top + [getattr(room, name) for room in rooms for name in getattr(room, "__all__", ())]
    kept = [(thing, dict(thing)) for thing in offered if isinstance(thing, Registry)]
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("name", RUN)
def test_the_code_of_a_page_runs(name):
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code(PAGES[name]), name, "exec", dont_inherit=True), names)
    HOLDS.get(name, lambda names: None)(names)


def _parsed(words: list[str]) -> None:
    """A command of ours, as far as it can be read without doing it."""
    if "--import" in words:  # its rules are not here
        at = words.index("--import")
        words = [word for word in words[:at] + words[at + 2 :] if word not in ("--sigma", "0.02")]
    if words == ["--help"]:
        return
    app.parse_args(words, print_error=False, exit_on_error=False)


MAKE = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"[\w-]+:", line)}
EXTRAS = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().split("optional-dep")[1], re.M))


def _there(line: str) -> None:
    """A line of commands: what it calls is there, and takes these options."""
    words = shlex.split(line.rpartition("| ")[2], comments=True)
    match words:
        case ["dualprop", *rest] | ["torchrun", "--nproc-per-node", _, "-m", "dualprop", *rest]:
            _parsed(rest)
        case ["make", target]:
            assert target in MAKE
        case ["pip", "install", *_, what]:
            assert set(re.findall(r"\[(\w+)\]", what)) <= EXTRAS
        case [".", ".venv/bin/activate"] | []:
            pass
        case ["python", path, *_]:
            assert (ROOT / path).exists()
        case _:
            raise AssertionError("no test knows this command")


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if commands(text)])
def test_the_commands_of_a_page_are_there(name):
    for line in commands(PAGES[name]):
        try:
            _there(line)
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from error


class _Begun(Exception):
    pass


def _little(name: str, shape: tuple[int, ...]) -> Source:
    """A data set that looks like another one."""
    some = Split(torch.zeros(40, *shape, dtype=torch.uint8), torch.arange(40) % 10)
    classes = tuple(map(str, range(10)))
    return Source(name, "", lambda _: Dataset(name, some, some, classes, (0.5,) * shape[0], (0.5,) * shape[0]))


ELSEWHERE = ("--resume", "--init-from", "--import", "--workers", "mine.toml", "folder:PATH")
"""Of commands that need what is not here."""
BEGIN = [
    pytest.param(name, line, marks=pytest.mark.slow if "vgg16" in line else ())
    for name, line in dict.fromkeys((name, line) for name, text in PAGES.items() for line in commands(text))
    if re.match("dualprop (train|compare)", line) and not any(words in line for words in ELSEWHERE)
]


@pytest.mark.parametrize(("name", "line"), BEGIN)
def test_a_command_that_trains_gets_to_its_first_batch(name, line, monkeypatch, tmp_path):
    """Rules, nets, losses and devices go together, on little data of the same shape."""

    def begun(settings: Settings, *_: Any, **__: Any) -> None:
        build(settings)
        raise _Begun

    def compared(settings: list[Settings], *_: Any) -> None:
        raise _Begun

    monkeypatch.chdir(tmp_path)
    for data, shape in (("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))):
        monkeypatch.setitem(dp.data.DATASETS, data, _little(data, shape))
    monkeypatch.setattr("dualprop.training.start.train", begun)
    monkeypatch.setattr("dualprop.studies.comparison._run", compared)
    words = shlex.split(line, comments=True)[1:]
    command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    with pytest.raises(_Begun):
        command(*bound.args, **bound.kwargs)


def test_no_block_is_of_a_language_that_nothing_runs():
    known = {*CODE, *COMMANDS, "toml", "text", "{toctree}", "{raw} html", "{eval-rst}"}
    for name, text in PAGES.items():
        assert {language.strip() for _, language, _ in FENCED.findall(text)} <= known, name
        assert not re.search(r"^    (dualprop|make|pip|import|from) ", FENCED.sub("", text), re.MULTILINE), name


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", PAGES["README.md"])
    for link in map("".join, links):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses and pickles look
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_the_records_say():
    for name, markup in _module(DOCS / "pictures.py").pictures().items():
        assert (DOCS / "_static" / name).read_text(encoding="utf-8") == markup


def test_what_a_conversion_makes_of_losses_is_what_the_page_says():
    table = PAGES["docs/reference/limitations.md"].split("\n\n(An MLP")[0]
    measured = _module(ROOT / "examples/convert_losses.py").measured()
    for row, both in zip(table.splitlines()[-4:], measured.values(), strict=True):
        assert row.endswith(f"| {both} |")


def test_every_public_name_is_in_the_interface():
    pytest.importorskip("sphinx")
    text = "\n".join(_module(DOCS / "_ext" / "interface.py").pages().values())
    for name in dp.__all__:
        thing = getattr(dp, name)
        if isinstance(thing, ModuleType):
            continue
        shown = f"`dp.{name}`\n" if isinstance(thing, Registry) else f":: dualprop.{name}\n"
        assert f"{text}\n".count(shown) == 1, name
