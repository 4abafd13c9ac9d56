"""Asynchronous training: workers whose gradients change weights that are kept by others.

::

    engine.py        calls between the processes, on torch.distributed.rpc
    messages.py      what they send each other
    work.py          which examples are left, and who has them
    shard.py         a part of the weights, and its optimiser
    shards.py        all shards, as the coordinator sees them
    link.py          a worker's exchanges: pull, push, next
    worker.py        computes gradients
    coordinator.py   hands out examples, evaluates, writes the files
    counts.py        what it counts of an epoch
    roles.py         which process does what
    hogwild.py       the same within one machine, on shared memory
    guard.py         lets torchrun go on when a worker is killed
"""
