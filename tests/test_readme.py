"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
DATA = README.parent / "docs" / "data.md"


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
