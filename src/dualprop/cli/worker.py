"""The process of a worker, `python -m dualprop.cli.worker [FOLDER]`: it waits for its order on standard input.

An order is one line of JSON. When standard input ends, the driver is gone, and so is the process; the folder of
the sockets goes with it, for a driver that was killed could not see to that.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
from pathlib import Path

from dualprop.cli._imports import again
from dualprop.errors import DualpropError
from dualprop.training.interrupt import IMPATIENT
from dualprop.training.workers.process import Server
from dualprop.training.workers.zeromq import ZeroMQEnd


def main() -> None:
    """Wait for an order, and work."""
    for number in IMPATIENT:  # the driver says when
        signal.signal(number, signal.SIG_IGN)
    import torch._dynamo  # noqa: F401 - what optimizers import at their first step, and most data when
    import torchvision.datasets  # noqa: F401 - they are read: one that waits has the time

    code = 0
    try:
        line = sys.stdin.buffer.readline()
        if line:
            order = json.loads(line)
            again([Path(file) for file in order["imports"]])
            Server(order, lambda: ZeroMQEnd(order, sys.stdin.fileno())).serve()
    except DualpropError as error:
        code = 1
        if not _forsaken():
            print(error, file=sys.stderr)
    finally:
        if _forsaken():
            for folder in sys.argv[1:]:
                shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.flush()
    os._exit(code)  # taking all of PyTorch down again would take seconds, and there is nothing left to keep


def _forsaken() -> bool:
    """Whether standard input has ended."""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    main()
