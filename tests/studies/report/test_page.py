"""The page: complete, small, the same every time, without a name in it that could act, and without a fetch."""

import json
import re
from html.parser import HTMLParser

import pytest

import dualprop as dp
from dualprop.studies.report.document import document
from dualprop.studies.report.page import LARGEST, page
from tests.studies.report.records import TABLE, keep_pictures, record, table_file

VOID = {"meta", "link", "wbr", "path", "use", "rect", "image"}
BAD = "<script>alert(1)</script>\"'&{{ 7*7 }}"


class Page(HTMLParser):
    """Elements with their attributes, ids and references; every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records for every kind of figure, with names that would act if they could, and their table."""
    path = tmp_path_factory.mktemp("page")
    for seed in range(2):
        keep_pictures(record(path / "runs", f"{BAD.replace('/', '')}{seed}", "dp", seed, 0.91))
    record(path / "runs", "bp", "bp", 0, 0.9)
    record(path / "runs", "elsewhere", "bp", 0, 0.9, settings={"lr": 0.5})
    bad = TABLE.replace('"Digits"', json.dumps(BAD)).replace('"A paper"', json.dumps(BAD))
    (path / "small.toml").write_text(bad, encoding="utf-8")
    return path


def read(folder):
    return document([folder / "runs"], [str(folder / "small.toml")])


@pytest.fixture(scope="module")
def text(folder):
    """Their page."""
    return page(read(folder))


def test_it_is_one_file_that_fetches_and_runs_nothing(text):
    found = Page(text)
    assert not found.all("script")
    assert not re.search(r"https?://|@import|url\((?!#)|\son\w+=|javascript:", text.replace(BAD, ""))
    for _, attributes in found.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "<script>alert" not in text
    assert "49" not in re.findall(r"\{\{ (.*?) \}\}", text)
    assert "{{ 7*7 }}" in text


def test_ids_are_unique_and_every_reference_has_its_own(text):
    found = Page(text)
    assert len(set(found.ids)) == len(found.ids) > 20
    for _, attributes in found.elements:
        for name, value in attributes.items():
            for reference in re.findall(r"url\(#([^)]+)\)", value or "") + (
                [value[1:]] if name == "href" and value.startswith("#") else []
            ):
                assert reference in found.ids
            if name == "aria-labelledby":
                assert set(value.split()) <= set(found.ids)


def test_tables_and_figures_are_for_readers_of_every_kind(text):
    found = Page(text)
    assert len(found.all("table")) == len(found.all("caption")) == 3 + 5
    assert all("scope" in attributes for attributes in found.all("th"))
    assert len(found.all("figure")) == len(found.all("details")) == 5
    assert len(found.all("svg")) == 1 + 2 + 2 + 1 + 1 == len(found.all("title")) - 1 == len(found.all("desc"))
    assert all(svg["role"] == "img" and "aria-labelledby" in svg for svg in found.all("svg"))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "var(--series-0)" in text
    assert not re.search(r"(fill|stroke):#[0-9a-f]{6}", text)
    assert "font-family: 'DejaVu" not in text


def test_the_same_records_make_the_same_bytes(folder, text):
    assert page(read(folder)) == text


@pytest.mark.slow
def test_fourteen_rules_and_many_rows_stay_within_the_page_and_nothing_is_silently_left_out(tmp_path):
    rules = list(dp.RULES)[:14]
    rates = [round(0.1 * n, 1) for n in range(1, 25)]
    wide = TABLE.split("[[blocks]]")[0] + (
        "[[blocks]]\nsettings = { data = 'digits', hidden = [8], epochs = 60 }\n"
        f"axes.rule = {rules}\naxes.lr = {rates}\n"
        "published = [{ at = {}, values.test_accuracy = 90.0 }]\n"
    )
    table_file(tmp_path)
    for n, rule in enumerate(rules):
        keep_pictures(
            record(tmp_path / "runs", f"r{n}", "bp", 0, 0.9, settings={"rule": rule, "epochs": 60, "lr": 0.1})
        )
    (tmp_path / "wide.toml").write_text(wide)
    made = document([tmp_path / "runs"], [str(tmp_path / "wide.toml")])
    text = page(made)
    found = Page(text)
    assert len(text.encode()) <= LARGEST
    shown = sum(len(plan.figure.data.rows) > 0 for plan in made.sections[0].figures)
    assert len(found.all("figure")) == shown
    assert len(made.sections[0].tables[0].rows) == 24 * 14 > 250
    assert f"{24 * 14 - 250} more rows are in the Markdown and CSV files" in text


def test_figures_that_would_make_it_too_large_are_named(folder, text, monkeypatch):
    drawn = re.findall("<figure>.*?</figure>", text, re.DOTALL)
    room = len(text.encode()) - len(drawn[1].encode())  # the second is one of the large ones
    monkeypatch.setattr("dualprop.studies.report.page.LARGEST", room)
    smaller = page(read(folder))
    assert len(smaller.encode()) <= room
    assert "<figure>" in smaller
    assert f"the page would be larger than {room:,} bytes" in smaller
