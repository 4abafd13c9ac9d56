"""Random numbers that depend only on the seed and on their purpose, not on earlier numbers.

A training can therefore be continued without saved generator states, and an utterance is augmented
alike in whichever process reads it.
"""

import hashlib

import torch


def seed_of(*what: object) -> int:
    """A 63-bit seed for a purpose, such as ``seed_of(options.seed, "noise", epoch, update)``."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*what: object) -> torch.Generator:
    """A generator on the CPU with the seed `seed_of` gives for a purpose."""
    return torch.Generator().manual_seed(seed_of(*what))
