"""Cells that workers train on the virtual clock."""

import json
from pathlib import Path

import pytest

import dualprop as dp
from dualprop.studies.tables.makers import MAKERS


@pytest.mark.parametrize(
    "given", [{}, {"way": "held"}, {"way": "held:2,beat=0.1", "slow": [1.0, 10.0]}, {"loss": 0.2}]
)
def test_a_record_is_that_of_its_own_cell(given, tmp_path):
    """Of no other way of working, and no other fault."""
    settings = dp.Settings(data="digits", hidden=(8,), epochs=1, batch_size=400, alignment=False)
    maker = MAKERS["asynchronous"](workers=2, **given)
    maker.check(settings)
    maker.make(settings, tmp_path / "cell", {"progress": False})
    record = MAKERS["asynchronous"].read(tmp_path / "cell")
    assert record.complete
    assert maker.differences(settings, record) == {}
    for other in ({"workers": 1}, {"way": "in-flight:3"}, {"delay": 0.1}, {"slow": [2.0, 1.0]}):
        assert MAKERS["asynchronous"](**{"workers": 2, **given, **other}).differences(settings, record) is None


def test_factors_that_are_not_one_for_each_worker():
    with pytest.raises(dp.DualpropError, match=r"slow=.*: must have 3 factors"):
        MAKERS["asynchronous"](slow=[2.0]).check(dp.Settings())


def test_a_record_of_before_workers_could_be_slow_is_one_where_none_is(tmp_path):
    settings = dp.Settings(data="digits", hidden=(8,), epochs=1, batch_size=400, alignment=False)
    maker = MAKERS["asynchronous"](workers=2)
    maker.make(settings, tmp_path / "cell", {"progress": False})
    resolved = Path(tmp_path / "cell" / "resolved.json")
    told = json.loads(resolved.read_text())
    del told["workers"]["carrier"]["slow"]
    resolved.write_text(json.dumps(told))
    assert maker.differences(settings, MAKERS["asynchronous"].read(tmp_path / "cell")) == {}
