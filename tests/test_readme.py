"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
DATA = README.parent / "docs" / "data.md"
TABLES = README.parent / "docs" / "tables.md"


def test_the_ten_lines_of_python_run():
    code, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    assert len(code.strip().splitlines()) <= 12
    cosine = names["dp"].alignment(names["rule"], names["x"], names["y"]).cosine
    assert min(cosine) > 0.9


def test_the_page_on_data_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DATA.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, str(DATA), "exec"), names)
    assert 0 <= names["result"].test_accuracy <= 1
    assert "test accuracy %" in names["report"].markdown()


def test_the_page_on_tables_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TABLES.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, str(TABLES), "exec"), names)
    assert [cell.path.name for cell in names["made"].cells] == [f"dp-beta{b}-epochs1-seed0" for b in ("0.1", "1")]
    assert all(cell.record.complete for cell in names["made"].cells)
    assert set(re.findall(r"`([\w-]+)`", TABLES.read_text().split("## ")[1])) >= set(names["tables"].shipped())


def test_the_page_on_streams_runs():
    page = README.parent / "docs" / "streaming.md"
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
    names: dict[str, object] = {}
    exec(compile(code, str(page), "exec"), names)
    assert names["judged"].frame == 7
    assert names["again"].ticks == names["learner"].ticks == 3
