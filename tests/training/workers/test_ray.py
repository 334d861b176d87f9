"""Workers that Ray places: by its own calls alone and by ZeroMQ; one is killed and comes back."""

import socket

import psutil
import pytest

import dualprop as dp
from dualprop.runs.folder import Run
from dualprop.training.workers import on_ray
from dualprop.training.workers.calls import Mailbox
from dualprop.training.workers.on_ray import OnRay
from tests.training.workers.test_processes import SETTINGS, Kill, alive, left, sockets

pytest.importorskip("ray")
__all__ = ["sockets"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "carrier", [dp.distributed.RayCalls(snapshot_every=0.2), dp.distributed.ZeroMQ(snapshot_every=0.2)]
)
def test_they_learn_where_ray_places_them_and_leave_nothing_behind(carrier, tmp_path, sockets, monkeypatch):
    calls = isinstance(carrier, dp.distributed.RayCalls)
    kill = Kill(*([(200, 1)] if calls else []))
    before = psutil.Process().children(recursive=True)  # of libraries that other tests have imported
    if calls:  # nothing else is needed
        monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    result = dp.distributed.train(
        dp.Settings(**{**SETTINGS, "epochs": 12}),
        tmp_path / "run",
        workers=2,
        carrier=carrier,
        address="local",
        callbacks=[kill],
        progress=False,
    )
    assert result.test_accuracy > 0.85
    assert [number for number, _, _ in kill.recoveries] == [1] * calls
    assert alive(set(psutil.Process().children(recursive=True)) - set(before)) == []
    assert left(sockets) == []
    measures = Run.open(tmp_path / "run").metrics("epoch")[-1]["measures"]
    assert measures["updates"] > 300  # fewer the longer Ray takes to place the one that was killed
    assert measures["refused"] == 0


@pytest.mark.parametrize(("address", "said"), [("local", "starts here"), ("auto", "answers there")])
@pytest.mark.parametrize("kind", [Exception, ConnectionError, RuntimeError])
def test_a_cluster_that_does_not_start_is_one_line_and_leaves_nothing_behind(
    address, said, kind, sockets, monkeypatch
):
    import ray

    def init(**settings):
        raise kind("The current node\ntimed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    placement = OnRay(address)
    with pytest.raises(dp.DualpropError) as error:
        placement.host()
    assert str(error.value) == (
        f"address='{address}': no Ray cluster {said} (The current node timed out during startup.)"
    )
    placement.end(1.0)
    assert left(sockets) == []


def test_who_answers_and_is_no_cluster_is_told_before_anything_begins(tmp_path, monkeypatch):
    """Ray would ask him again for minutes, and print a line each time."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        for seconds, program, said in (
            (0.5, "import time; print(flush=True); time.sleep(60)", "none within 0.5 s"),
            (20.0, "raise ValueError('version 2.1')", "ValueError: version 2.1"),
        ):
            monkeypatch.setattr(on_ray, "ANSWERS", seconds)
            monkeypatch.setattr(on_ray, "TRIAL", program)
            with pytest.raises(dp.DualpropError) as error:
                dp.distributed.train(dp.Settings(hidden=(8,)), tmp_path / "run", address=address)
            assert str(error.value) == f"address='{address}': no Ray cluster answers there ({said})"
    assert not (tmp_path / "run").exists()


def test_what_has_come_is_bounded_and_the_latest_stays():
    mail = Mailbox()
    mail.room(2)
    for number in range(5):
        mail.take("up", bytes([number]))
    mail.take("", b"order")
    mail.wait(10.0)
    assert mail.come("up", "down") == [b"\3", b"\4"]
    assert mail.come("") == [b"order"]
    assert mail.come("") == []
    mail.say(b"said")
    assert mail.said(10.0) == [b"said"]
    assert mail.said(0.0) == []
    mail.farewell(10.0)


def test_ray_calls_go_with_an_address(tmp_path):
    with pytest.raises(dp.DualpropError, match=r"carrier=RayCalls\(\): goes with an address"):
        dp.distributed.train(dp.Settings(hidden=(8,)), tmp_path / "run", carrier=dp.distributed.RayCalls())
    assert not (tmp_path / "run").exists()
