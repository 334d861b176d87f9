"""The files of a report: written, compared, and nobody's file replaced."""

import re

import pytest

from dualprop.errors import CheckpointError, DualpropError
from dualprop.studies.report.document import document
from dualprop.studies.report.write import check, contents, write
from tests.studies.report.records import record, table_file


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """What the files of a report of one run hold, by ending."""
    folder = tmp_path_factory.mktemp("records")
    record(folder / "runs", "dp", "dp", 0, 0.91)
    made = contents(document([folder / "runs"], [str(table_file(folder))]), folder / "any")
    assert [path.name for path in made] == ["any.html", "any.md", "any.csv"]
    return {path.suffix: text for path, text in made.items()}


@pytest.fixture
def made(texts, tmp_path):
    """The same, for a place of this test's own."""
    return {tmp_path / f"report{ending}": text for ending, text in texts.items()}


def test_three_files_of_one_name(made, tmp_path):
    write(made)
    assert all(path.read_text(encoding="utf-8") == text for path, text in made.items())
    assert check(made) == list(made)
    write(made)  # a report may be written again
    (tmp_path / "report.html").unlink()
    assert check(made) == list(made)[1:]


@pytest.mark.parametrize("ending", [".html", ".md", ".csv"])
def test_another_number_is_found(made, tmp_path, ending):
    write(made)
    path = tmp_path / f"report{ending}"
    path.write_text(path.read_text(encoding="utf-8").replace("91.00", "92.00"), encoding="utf-8")
    with pytest.raises(
        DualpropError, match=rf"report\{ending}: .*92\.00.*, but the records say .*91\.00"
    ) as error:
        check(made)
    assert "\n" not in str(error.value)


def test_by_another_matplotlib_the_numbers_are_compared_and_not_the_drawing(made, tmp_path):
    write(made)
    path = tmp_path / "report.html"
    other = made[path].replace('<path d="M', '<path d="M0 0L')
    path.write_text(other, encoding="utf-8")
    with pytest.raises(DualpropError, match="line"):
        check(made)
    other = re.sub(r"matplotlib [\d.]+", "matplotlib 0.1", other)
    path.write_text(other, encoding="utf-8")
    check(made)
    for cell, another in (("91.00 (n = 1)", "81.00 (n = 1)"), (">10<", ">11<")):  # the second is of a figure's
        assert cell in other
        path.write_text(other.replace(cell, another), encoding="utf-8")
        with pytest.raises(DualpropError, match="but the records say"):
            check(made)


def test_a_file_that_is_no_report_is_not_replaced(made, tmp_path):
    (tmp_path / "report.md").write_text("my notes")
    with pytest.raises(CheckpointError, match=r"report\.md: exists and is no report"):
        write(made)
    assert (tmp_path / "report.md").read_text() == "my notes"
    assert not (tmp_path / "report.html").exists()


def test_nothing_to_compare_or_no_place_to_write_is_one_line(made, texts, tmp_path):
    with pytest.raises(DualpropError, match="none of"):
        check(made)
    with pytest.raises(DualpropError, match="cannot be written"):
        write({tmp_path / "missing" / "report.md": texts[".md"]})
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(DualpropError, match="cannot be read"):
        write({tmp_path / "folder.md": texts[".md"]})
