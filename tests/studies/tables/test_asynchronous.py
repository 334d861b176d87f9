"""Cells that workers train on the virtual clock."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import dualprop as dp
from dualprop.studies.tables.makers import MAKERS, asynchronous, base
from dualprop.training.experiment import build
from dualprop.training.workers.worker import Worker


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


def test_what_a_batch_takes_is_timed_where_workers_learn_it(monkeypatch):
    """By a clock that counts what workers do: the first learns and begins another, the last does the rest."""
    done, react = [0], Worker.react

    def counted(self, messages, now):
        done[0] += 1
        return react(self, messages, now)

    monkeypatch.setattr(Worker, "react", counted)
    monkeypatch.setattr(asynchronous, "time", SimpleNamespace(perf_counter=lambda: float(done[0])))
    settings = dp.Settings(data="digits", hidden=(8,), batch_size=10)
    assert MAKERS["asynchronous"](workers=2).step_seconds(build(settings)) == pytest.approx(2)
    assert MAKERS["asynchronous"](workers=2, way="held").step_seconds(build(settings)) > 2


def test_the_first_time_does_not_count(monkeypatch):
    """It imports libraries: one row of a table was said to take a hundred times as long as it does."""
    clock, took = [0.0], iter([60.0, 0.3, 0.2, 0.4, 0.3])

    def work():
        clock[0] += next(took)

    monkeypatch.setattr(base, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert base.least(work) == pytest.approx(0.2)
    assert next(took, None) is None
