"""What a worker saves of its layers is all that it needs: who goes on from it is who never stopped."""

import copy

import pytest
import torch

import dualprop as dp
from dualprop.runs import checkpoint
from dualprop.runs.folder import Run
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.simulated import Simulated, Simulation
from tests.training.workers.builders import batches_of, net_of, same, workers_of

WAYS = pytest.mark.parametrize("way", [InFlight(1), Held()], ids=["in flight", "held"])


def made(net, way):
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.01)  # noqa: E731
    return workers_of(net, batches_of(6, last=3), way, groups=[(1, 1), (2, 3), (4, 4)], opt=adam)


def ran(workers, until):
    for _ in Simulation(workers, Simulated(), [1.0] * 3).run(until, until):
        pass


@WAYS
def test_who_goes_on_from_a_snapshot_is_who_never_stopped(way, tmp_path):
    net = net_of()
    workers = made(net, way)
    ran(workers, 6)
    kept = {k: checkpoint.dumped(w.state_dict(k)) for w in workers for k in range(w.part.first, w.part.last + 1)}
    twin = copy.deepcopy(net)
    ran(workers, 16)
    for parameter in twin.parameters():
        parameter.data.normal_()
    others = made(twin, way)
    for worker in others:
        for k in range(worker.part.first, worker.part.last + 1):
            file = tmp_path / str(k)
            file.write_bytes(kept[k])
            worker.load_state_dict(k, checkpoint.loaded(file))
        assert worker.next == 6
        assert worker.counts.updates == 6
    ran(others, 16)
    assert same(net, twin)
    assert [w.counts.updates for w in others] == [w.counts.updates for w in workers] == [16] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "holds .*, but a layer keeps layer, optimizer, batch, counts"),
        ({"optimizer": None}, "state: layer 1: of another kind of layer"),
        ({"batch": -1}, "state: layer 1: batch=-1"),
        ({"counts": {"updates": 1}}, "state: layer 1: counts"),
        ({"layer": {}}, "state: layer 1"),
    ],
)
def test_what_is_no_snapshot_of_it_is_refused(change, said):
    worker = made(net_of(), InFlight(1))[0]
    with pytest.raises(dp.DualpropError, match=said):
        worker.load_state_dict(1, {**worker.state_dict(1), **change})


def test_a_run_on_the_virtual_clock_goes_on(tmp_path):
    """More epochs of a finished run: the batches, the learning rate and the counts go on."""
    settings = dp.Settings(data="digits", hidden=(8, 8), epochs=1, lr=0.01, batch_size=200, alignment=False)
    carrier = Simulated()
    dp.distributed.train(settings, tmp_path / "run", workers=3, carrier=carrier, progress=False)
    first = Run.open(tmp_path / "run").metrics("epoch")[-1]
    with pytest.raises(dp.DualpropError, match=r"carrier=ZeroMQ\(...\): the run was made by Simulated") as error:
        dp.distributed.resume(tmp_path / "run", {"epochs": 3}, carrier=dp.distributed.ZeroMQ(), progress=False)
    assert "\n" not in str(error.value)
    dp.distributed.resume(tmp_path / "run", {"epochs": 3}, workers=2, progress=False)  # by what it was begun by
    epochs = Run.open(tmp_path / "run").metrics("epoch")
    assert [epoch["step"] for epoch in epochs] == [first["step"], 2 * first["step"], 3 * first["step"]]
    assert epochs[-1]["measures"]["virtual_seconds"] > first["measures"]["virtual_seconds"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
