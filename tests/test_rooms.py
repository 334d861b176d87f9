"""Imports go one way, as data does: a room imports from itself, from rooms below it, and nothing else of ours."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import dualprop

SRC = Path(dualprop.__file__).parent
FLOORS = [
    "errors",
    "registry extras",
    "files",
    "arguments",
    "runs",
    "nets data",
    "engines convert",
    "rules",
    "training",
    "studies",
    "cli distributed river sklearn lightning hub onnx wandb mlflow",
]
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms.split()}
FILES = sorted(file for file in SRC.rglob("*.py") if file.parent != SRC or file.stem in FLOOR)


def imported(file: Path) -> set[str]:
    """The modules below `dualprop` that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "dualprop":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualprop."):
            names.add(str(node.module).removeprefix("dualprop."))
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: imports by full names"
    return names


def test_imports_go_down():
    for file in FILES:
        room = file.relative_to(SRC).parts[0].removesuffix(".py")
        for module in imported(file):
            other = module.split(".")[0]
            assert other == room or FLOOR[other] < FLOOR[room], f"{file}: {room} imports {module}"


def test_contributing_shows_every_room_and_files_that_are_there():
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1:4] for row in re.findall(r"^\| .* \|$", page, flags=re.MULTILINE)[2:]]
    rooms = {room.strip("/").removesuffix(".py") for row in rows for room in re.findall(r"`([\w/.]+)`", row[0])}
    assert rooms == set(FLOOR)
    for row in rows:
        (first, *_), shown = re.findall(r"`([\w/.]+)`", row[0]), re.findall(r"`([\w/.]+)`", row[2])
        files = {file.relative_to(SRC / first).as_posix() for file in (SRC / first).rglob("*.py")}
        names = files | {file.rpartition("/")[2] for file in files} | {"RULES"}
        folders = {f"{part}/" for file in files for part in file.split("/")[:-1]} | {"recipes/"}
        assert [name for name in shown if name not in names | folders] == [], first
