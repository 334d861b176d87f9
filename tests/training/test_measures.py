"""What a rule measures of its inference: means over batches in the metrics, and for TensorBoard."""

from dataclasses import replace

import pytest

import dualprop as dp
from dualprop import resume, train
from dualprop.errors import Interrupted
from dualprop.runs.folder import Run
from dualprop.studies.report import Record
from dualprop.training.interrupt import Interrupt
from dualprop.training.means import Means


class Counting(dp.Backprop):
    """Back-propagation twice a batch; the n-th update measures n, and every fourth something more."""

    def __init__(self, net, *, loss="mse"):
        super().__init__(net, loss=loss)
        self.add_state("updates_made", 0)

    def updates(self, x, y):
        for _ in range(2):
            for step in super().updates(x, y):
                self.updates_made += 1
                rare = {"rare": 0.25} if self.updates_made % 4 == 0 else {}
                yield replace(step, products=7, measures={"n": self.updates_made, **rare})


@pytest.fixture
def counting(monkeypatch, quick):
    monkeypatch.setitem(dp.RULES, "counting", dp.Method(Counting, "counts"))
    return replace(quick, rule="counting", epochs=2)


def by_kind(path, kind):
    return [record for record in Run.open(path).metrics() if record["kind"] == kind]


def test_records_hold_the_means_since_the_last_one(counting, tmp_path):
    """Batch b makes updates 2b - 1 and 2b, whose mean is 2b - 1/2; records come every 5 batches of 13 an epoch."""
    train(counting, tmp_path / "run")
    trains, epochs = by_kind(tmp_path / "run", "train"), by_kind(tmp_path / "run", "epoch")
    batches = epochs[0]["step"]
    assert [r["step"] for r in epochs] == [batches, 2 * batches]
    begun = 0  # within an epoch
    for record in trains:
        if record["step"] > batches >= begun:
            begun = batches
        seen = range(begun + 1, record["step"] + 1)
        assert record["measures"]["n"] == pytest.approx(sum(2 * b - 0.5 for b in seen) / len(seen))
        assert record["measures"]["products"] == 14
        begun = record["step"]
    for number, record in enumerate(epochs):
        seen = range(number * batches + 1, (number + 1) * batches + 1)
        assert record["measures"] == pytest.approx(
            {"n": sum(2 * b - 0.5 for b in seen) / len(seen), "rare": 0.25, "products": 14}
        )
    assert [r.get("measures") for r in by_kind(tmp_path / "run", "test")] == [None]
    assert Record.read(tmp_path / "run").epochs[0]["measures"]["products"] == 14


def test_a_rule_without_measures_records_none(quick, tmp_path):
    train(replace(quick, rule="bp"), tmp_path / "run")
    assert not any("measures" in record for record in Run.open(tmp_path / "run").metrics())


def test_tensorboard_sees_them(counting, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(counting, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for kind in ("train", "epoch"):
        records = by_kind(tmp_path / "run", kind)
        seen = events.Scalars(f"{kind} measures/n")
        assert [(e.step, e.value) for e in seen] == [
            (r["step"], pytest.approx(r["measures"]["n"])) for r in records
        ]


def test_a_stopped_run_records_the_same(counting, tmp_path, monkeypatch):
    train(counting, tmp_path / "whole")
    polls = iter(range(10_000))
    asked = property(lambda self: next(polls) >= 6, lambda self, value: None)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "asked", asked, raising=False)
        with pytest.raises(Interrupted):
            train(counting, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    for kind in ("train", "epoch"):
        whole, stopped = (by_kind(tmp_path / name, kind) for name in ("whole", "stopped"))
        assert [r["measures"] for r in whole] == [r["measures"] for r in stopped]


def test_means_are_over_the_times_that_a_number_was_given():
    ours, theirs = Means(), Means()
    ours.add({"a": 1, "b": 2.0})
    ours.add({"a": 4})
    theirs.add({"a": 1, "c": 8.0})
    assert ours() == {"a": 2.5, "b": 2.0}
    ours.merge(theirs)
    assert ours() == {"a": 2.0, "b": 2.0, "c": 8.0}
