"""Two processes with half of the batch each learn what one does with all of it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import dualprop as dp

SETTINGS = {"symmetric": {}, "kolen-pollack": {"kolen_pollack": True}}


def model(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 3))
    return dp.convert(net, beta=4.0, **SETTINGS[kind])


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 6, generator=generator), torch.arange(8) % 3


def train(module, x, y):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    return module.state_dict()


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, y = batch()
    for kind in SETTINGS:
        module = DistributedDataParallel(model(kind))
        train(module, x[rank::2], y[rank::2])
        torch.save(module.module.state_dict(), f"{folder}/{kind}-{rank}.pt")
    dist.barrier()  # nobody leaves while the other still listens
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    for kind in SETTINGS:
        expected = train(model(kind), *batch())
        for rank in range(2):
            ours = torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True)
            assert set(ours) == set(expected)
            for name in expected:
                torch.testing.assert_close(ours[name], expected[name], rtol=1e-5, atol=1e-6)
