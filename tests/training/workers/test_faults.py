"""Faults one by one: links that are cut, disks that are full, workers that do not answer or are others."""

import dataclasses
import logging
import resource
import struct
import zlib

import pytest
import torch

import dualprop as dp
from dualprop.runs.folder import Run
from dualprop.training.experiment import build
from dualprop.training.workers import start, zeromq
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.message import Kind, Message
from dualprop.training.workers.placement import HERE, Placement
from dualprop.training.workers.process import versions
from dualprop.training.workers.processes import ProcessCrew
from dualprop.training.workers.simulated import Simulated, Simulation
from tests.training.workers.builders import batches_of, net_of, workers_of

SMALL = dp.Settings(
    data="digits", hidden=(8,), epochs=1, batch_size=400, lr=0.01, loss="cross_entropy", alignment=False
)


class Cut(Simulated):
    """A link over which nothing comes from one message to another."""

    first, last = 20, 60
    count = 0

    def arrivals(self, generator):
        Cut.count += 1
        return [] if self.first <= Cut.count < self.last else super().arrivals(generator)


@pytest.mark.parametrize("way", [InFlight(2), Held(patience=0.1)], ids=["in flight", "held"])
def test_a_link_that_is_cut_heals(way):
    """All batches are begun; those of afterwards are learnt from as those of before were."""
    Cut.count = 0
    net, pairs = net_of(), batches_of(4)
    workers = workers_of(net, pairs, way, groups=[(1, 2), (3, 4)], lr=1e-3)
    simulation = Simulation(workers, Cut(delay=0.001), [1.0, 1.0])
    skipped = []
    for _ in simulation.run(100, 100):
        skipped.append(sum(w.counts.skipped for w in workers))
    assert sum(simulation.lost) == Cut.last - Cut.first
    assert workers[0].counts.seen == 100
    assert workers[0].counts.updates >= 60
    assert workers[0].counts.updates + workers[0].counts.skipped == 100
    assert skipped[-1] == skipped[-len(skipped) // 4], "long after it has healed nothing is skipped"


def test_zeromq_hears_again_who_comes_back():
    """What is sent meanwhile is dropped, counted, and waited for by nobody."""
    pytest.importorskip("zmq")
    here, there = zeromq.Sockets(None, 10_000), zeromq.Sockets(None, 10_000)
    inbox, endpoint = there.bound("PULL", 4, "tcp://127.0.0.1:*")
    sending = here.connected("PUSH", 4, endpoint)
    message = Message(Kind.MEAN, 0, 1, torch.ones(2))

    def heard():
        for batch in range(500):
            here.send(sending, message._replace(batch=batch))
            there.poll(0.01)
            if list(there.received(inbox)):
                return True
        return False

    assert heard()
    there.close()
    for _ in range(100):
        here.send(sending, message)
    assert here.dropped > 0
    there = zeromq.Sockets(None, 10_000)
    inbox, _ = there.bound("PULL", 4, endpoint)
    assert heard()
    here.close()
    there.close()


class Full(dp.Callback):
    """From the first step on no file may have more than some bytes, as on a disk that is full."""

    def __init__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def step(self, trainer):
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, self.before[1]))


def test_where_the_disk_is_full_training_goes_on(tmp_path, caplog):
    """With a warning each for what is not written; what is written is whole, and the result is the same."""
    carrier, full = Simulated(), Full()
    settings = dataclasses.replace(SMALL, checkpoint_every=0.0, log_every=1)
    expected = dp.distributed.train(settings, tmp_path / "free", carrier=carrier, progress=False)
    with caplog.at_level(logging.WARNING, "dualprop"):
        try:
            result = dp.distributed.train(
                settings, tmp_path / "run", carrier=carrier, callbacks=[full], progress=False
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, full.before)
    assert result.test_accuracy == expected.test_accuracy
    assert result.best_epoch == expected.best_epoch
    said = [record.message for record in caplog.records]
    assert len(said) == len(set(said))
    for what in ("checkpoint.safetensors: cannot be written", "metrics.jsonl cannot be written"):
        assert sum(what in line and line.endswith("training goes on") for line in said) == 1, said
    run = Run.open(tmp_path / "run")
    assert all(record["step"] >= 0 for record in run.metrics())
    assert run.load()["counters"]["step"] <= 1


class Nobody(Placement):
    """Starts nothing; says something in the name of the first worker, if it is given that."""

    def __init__(self, said=None):
        self.said, self.sockets = said, None

    def start(self, number, order):
        if self.said is not None and number == 0:
            import zmq

            self.sockets = zeromq.Sockets(order["key"], order["largest"])
            self.control = self.sockets.connected("DEALER", 10, order["control"], b"worker0")
            self.control.send(self.said, zmq.NOBLOCK)

    def dead(self, number):
        return ""

    def end(self, seconds):
        if self.sockets is not None:
            self.sockets.close()


def crew(path, placement, carrier):
    experiment = build(SMALL)
    path.mkdir()
    return ProcessCrew(experiment, experiment.resolved, [(1, 1), (2, 2)], InFlight(4), path, carrier, placement)


def hello(**changed):
    words = {"versions": {**versions(), **changed}, "endpoint": "ipc://nowhere", "next": 0, "updates": 0, "pid": 1}
    return Message.of(Kind.HELLO, words).packed()


def newer(packed):
    """A message of the next version, with the checksum that belongs to it."""
    packed = bytearray(packed)
    packed[4], packed[24:28] = 2, bytes(4)
    packed[24:28] = struct.pack("<I", zlib.crc32(bytes(packed)))
    return bytes(packed)


@pytest.mark.parametrize(
    ("said", "timeout", "error"),
    [
        (lambda: None, 0.3, r"timeout=0.3: no answer from the worker of layer 1, layer 2$"),
        (
            lambda: hello(torch="1.0"),
            20.0,
            r"worker 1 \(layer 1\): versions .*'torch': '1.0'.*, but the driver's are",
        ),
        pytest.param(
            lambda: newer(hello()),
            3.0,
            r"no answer .* layer 1, layer 2; what came was of another version",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["nobody", "another PyTorch", "other messages"],
)
def test_who_does_not_answer_or_is_another(tmp_path, said, timeout, error):
    pytest.importorskip("zmq")
    with pytest.raises(dp.DualpropError, match=error) as raised:
        crew(tmp_path / "run", Nobody(said()), zeromq.ZeroMQ(timeout=timeout)).__enter__()
    assert "\n" not in str(raised.value)


def test_where_nobody_answers_no_folder_is_left(tmp_path, monkeypatch):
    """And one that was there stays."""
    pytest.importorskip("zmq")
    run, small = tmp_path / "run", {"carrier": zeromq.ZeroMQ(timeout=0.1), "progress": False}
    monkeypatch.setattr(start, "Local", Nobody)
    with pytest.raises(dp.DualpropError, match="no answer"):
        dp.distributed.train(SMALL, run, **small)
    assert list(tmp_path.iterdir()) == []
    dp.distributed.train(SMALL, run, carrier=Simulated(), progress=False)
    with pytest.raises(dp.DualpropError, match="exists; choose"):
        dp.distributed.train(SMALL, run, **small)
    assert (run / "result.json").is_file()


def test_the_settings_of_a_way_reach_the_processes(tmp_path):
    from dualprop.training.workers.ways import parsed

    experiment = build(SMALL)
    for way in (Held(3, beat=0.25, patience=1.5), Held(), InFlight(7)):
        one = ProcessCrew(experiment, experiment.resolved, [(1, 2)], way, tmp_path, zeromq.ZeroMQ(), Nobody())
        assert parsed(one._order["way"]) == way


def test_a_key_where_others_can_reach_the_sockets(tmp_path):
    """On an outer address of this machine, here the one that stands for all: none but who has the key is heard."""
    pytest.importorskip("zmq")
    placement = Nobody()
    one = crew(tmp_path / "run", placement, zeromq.ZeroMQ(host="0.0.0.0", timeout=0.1))
    orders = []
    placement.start = lambda number, order: orders.append(order)
    with pytest.raises(dp.DualpropError, match="no answer"):
        one.__enter__()
    assert all(len(order["key"]) == 40 for order in orders)
    assert orders[0]["listen"].startswith("tcp://0.0.0.0:")
    sockets = zeromq.Sockets(None, 1000)
    with pytest.raises(dp.DualpropError, match=r"tcp://0.0.0.0:\*: others can reach it; it needs a key"):
        sockets.bound("PULL", 1, "tcp://0.0.0.0:*")
    sockets.close()


class Cluster(Nobody):
    """Machines of which this one is known by some address."""

    def host(self):
        return "127.0.0.1"


@pytest.mark.parametrize("host", [None, "127.0.0.1", "0.0.0.0"])
def test_on_a_cluster_each_worker_listens_on_its_own_machine_and_there_is_a_key(host):
    pytest.importorskip("zmq")
    hub = zeromq.ZeroMQ(host=host).hub(Cluster())
    try:
        assert hub.order["control"].startswith(f"tcp://{host or '127.0.0.1'}:")
        assert len(hub.order["key"]) == 40
        assert hub.listen(1) == f"tcp://{HERE}:*"
    finally:
        hub.close()
