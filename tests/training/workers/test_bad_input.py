"""One line for whatever is wrong, before there is a folder or a process."""

import re
import socket

import pytest
import torch

import dualprop as dp
from dualprop.extras import way_to
from dualprop.training.workers import on_ray, zeromq
from dualprop.training.workers.message import check_size

SMALL = {"data": "digits", "hidden": (8,), "epochs": 1, "lr": 0.01}


def refused(tmp_path, said, way="in-flight", workers=2, carrier=None, address=None, **settings):
    with pytest.raises(dp.DualpropError, match=said) as error:
        dp.distributed.train(
            dp.Settings(**{**SMALL, **settings}),
            tmp_path / "run",
            workers=workers,
            way=way,
            carrier=carrier or dp.distributed.Simulated(),
            address=address,
            progress=False,
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ("workers=3: must be at most 2", {"workers": 3}),
        ("workers=0", {"workers": 0}),
        ("unknown way 'sideways'", {"way": "sideways"}),
        ("way='in-flight:0'", {"way": "in-flight:0"}),
        ("rule: EquilibriumProp cannot run as workers, for all its layers", {"rule": "ep"}),
        ("rule: LiftedProximal cannot run", {"rule": "lpom"}),
        ("lazy: DualProp with lazy cannot run", {"rule": "l-dp"}),
        ("rounds: DualProp with rounds cannot run", {"rule": "ms-dp"}),
        ("schedule=Parallel", {"rule": "p-dp"}),
        ("rule: Backprop has no states that could be held", {"rule": "bp", "way": "held"}),
        ("clip_norm=1.0: not with workers", {"clip_norm": 1.0}),
        ("ema=0.9: not with workers", {"ema": 0.9}),
        ("precision='bf16': not with workers", {"precision": "bf16"}),
        ("fused_update=True: not with workers", {"fused_update": True}),
        ("devices: not with workers", {"devices": {"states": {"channel": "noise", "sigma": 0.1}}}),
        ("optimizer='pulsed-sgd': not with workers: they run on ideal", {"optimizer": "pulsed-sgd"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings(tmp_path, said, given):
    refused(tmp_path, said, **given)


def test_what_zeromq_refuses():
    for said, given in (
        ("host='example'", {"host": "example"}),
        ("port=5: goes with host", {"port": 5}),
        ("port=70000", {"host": "127.0.0.1", "port": 70000}),
        ("largest=0", {"largest": 0}),
    ):
        with pytest.raises(dp.DualpropError, match=said):
            dp.distributed.ZeroMQ(**given)
    with pytest.raises(dp.DualpropError, match="largest=1000: must be at least 1660, the bytes"):
        check_size(1000, 200)


def test_a_missing_extra_is_named_with_its_line(tmp_path, monkeypatch):
    way = re.escape(way_to("distributed"))
    monkeypatch.setitem(__import__("sys").modules, "zmq", None)
    refused(tmp_path, f"^workers: needs zmq, not installed; {way}$", carrier=dp.distributed.ZeroMQ())
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(dp.DualpropError, match=f"^address='local': needs ray, not installed; {way}$"):
        on_ray.OnRay("local")


def test_an_address_with_one_process(tmp_path):
    refused(tmp_path, "address='local': not with Simulated", address="local")


@pytest.mark.parametrize("address", ["192.0.2.1:6379", "a.cluster:6379"])
def test_a_loopback_address_that_workers_elsewhere_could_not_reach(address):
    pytest.importorskip("zmq")
    with pytest.raises(dp.DualpropError, match=f"host='127.0.0.1': the workers of {address} could not reach it"):
        dp.distributed.ZeroMQ(host="127.0.0.1").check(2, address)
    for near in (None, "local", "auto", "127.0.0.1:6379", "localhost:6379"):
        dp.distributed.ZeroMQ(host="127.0.0.1").check(2, near)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere", "must be HOST:PORT, auto or local"),
        ("127.0.0.1:1", "does not answer"),
        ("a:99999", "must be HOST"),
    ],
)
def test_an_address_that_does_not_answer(tmp_path, address, said):
    pytest.importorskip("ray")
    refused(tmp_path, f"address='{address}': {said}", carrier=dp.distributed.ZeroMQ(), address=address)


def test_only_who_has_the_key_is_heard():
    """Not who has another one, not who knows the public half of it, not who has none."""
    zmq = pytest.importorskip("zmq")
    key = zeromq.new_key()
    ours, friend, stranger, open_ = (zeromq.Sockets(k, 10_000) for k in (key, key, zeromq.new_key(), None))
    inbox, endpoint = ours.bound("PULL", 10, "tcp://127.0.0.1:*")
    message = dp.distributed.Message(dp.distributed.Kind.MEAN, 1, 2, torch.ones(3))
    knows = stranger.make("PUSH", 10)
    knows.setsockopt(zmq.CURVE_SERVERKEY, zmq.curve_public(key.encode()))
    knows.connect(endpoint)
    senders = [(each, each.connected("PUSH", 10, endpoint)) for each in (stranger, open_, friend)]
    heard = []
    for turn in range(100):
        for number, (sockets, sending) in enumerate([(stranger, knows), *senders]):
            sockets.send(sending, message._replace(part=number))
        ours.poll(0.02)
        heard += [got.part for _, got in ours.received(inbox)]
        if len(heard) > 3 and turn > 20:
            break
    for sockets in (ours, friend, stranger, open_):
        sockets.close()
    assert set(heard) == {3}


def test_a_port_in_use():
    zmq = pytest.importorskip("zmq")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        sockets = zeromq.Sockets(None, 1000)
        with pytest.raises(dp.DualpropError, match=f"tcp://127.0.0.1:{port}: cannot be listened on"):
            sockets.bound("PULL", 1, f"tcp://127.0.0.1:{port}")
        sockets.close()
    assert zmq


def test_a_shared_weight(tmp_path):
    from dualprop.training.workers.in_flight import InFlight
    from dualprop.training.workers.parts import check_rule

    dense = dp.Dense(4, 4)
    net = dp.Net([dp.Layer(dense), dp.Layer(dense), dp.Layer(dp.Dense(4, 3), "linear")])
    with pytest.raises(dp.DualpropError, match="layers 1 and 2 share a weight"):
        check_rule(dp.DualProp(net), InFlight())
    assert torch.is_tensor(dense.weight)


def test_what_the_sockets_would_not_take_is_told_before_anything_begins(tmp_path, monkeypatch):
    pytest.importorskip("zmq")
    refused(
        tmp_path, r"largest=1000: must be at least \d+, the bytes", carrier=dp.distributed.ZeroMQ(largest=1000)
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for first, said in ((port, port), (port - 2, r"\d+")):  # the driver's, or that of the second worker
            carrier = dp.distributed.ZeroMQ(host="127.0.0.1", port=first)
            refused(tmp_path, f"port={said}: cannot be listened on at 127.0.0.1", carrier=carrier)
    carrier = dp.distributed.ZeroMQ(host="192.0.2.1")
    refused(tmp_path, "port=0: cannot be listened on at 192.0.2.1", carrier=carrier)
    carrier = dp.distributed.ZeroMQ(host="127.0.0.1", port=65534)
    refused(tmp_path, "port=65536: cannot be listened on at 127.0.0.1", carrier=carrier)
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "long" * 25)
    refused(tmp_path, "TMPDIR='/tmp/long.*: too long for Unix sockets", carrier=dp.distributed.ZeroMQ())


def test_factors_that_are_not_one_for_each_worker(tmp_path):
    refused(tmp_path, r"slow=\(2.0,\): must have 2 factors", carrier=dp.distributed.Simulated(slow=(2.0,)))


def test_a_carrier_that_is_none(tmp_path):
    refused(tmp_path, r"carrier='tcp': must be ZeroMQ\(...\), RayCalls\(...\) or Simulated", carrier="tcp")


def test_a_way_that_is_none(tmp_path):
    refused(tmp_path, r"way=5: must be InFlight\(...\), Held\(...\) or a word", way=5)
    refused(
        tmp_path,
        "way='held:1,pace=2': unknown setting 'pace'; choose from updates, beat, patience",
        way="held:1,pace=2",
    )
    refused(tmp_path, "way='held:1,beat=-1': beat=-1", way="held:1,beat=-1")
