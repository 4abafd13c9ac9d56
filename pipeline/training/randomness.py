"""Random numbers that follow from the seed and from what they are for, never from what came before.

So a training that goes on needs no saved states, and an utterance is augmented alike whichever
process reads it.
"""

import hashlib

import torch


def seed_of(*what: object) -> int:
    """A 63-bit number for a purpose, such as ``seed_of(options.seed, "noise", epoch, update)``."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*what: object) -> torch.Generator:
    """A generator on the CPU for a purpose."""
    return torch.Generator().manual_seed(seed_of(*what))
