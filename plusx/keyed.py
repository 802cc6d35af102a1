"""Randomness without state: every number is a pure function of (seed, epoch, index, purpose).

A counter-based generator: the key is hashed, then the index, then the position of the number
within its row, each with the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 14). No call depends on
an earlier one, so order and augmentation need no saved state, resume exactly at any step, and do
not depend on how many workers draw them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.integer]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the SplitMix64 increment
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def words(seed: int, epoch: int, indices: Indices, purpose: str, count: int = 1) -> Words:
    """Uniform 64-bit words, shape [len(indices), count]."""
    rows = _mix(_key(seed, epoch, purpose) ^ _mix(np.asarray(indices).astype(np.uint64)))  # [n]
    counters = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN  # [count]
    return _mix(rows[:, None] + counters[None, :])


def uniform(seed: int, epoch: int, indices: Indices, purpose: str, count: int = 1) -> Floats:
    """Uniform numbers in [0, 1), shape [len(indices), count]."""
    high_bits = words(seed, epoch, indices, purpose, count) >> np.uint64(11)
    return high_bits.astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, n: int, purpose: str = "order") -> npt.NDArray[np.int64]:
    """A random order of 0 .. n-1, shape [n]; ties (one in 2^64) keep their order."""
    keys = words(seed, epoch, np.arange(n), purpose)[:, 0]
    return np.argsort(keys, kind="stable")


def generator(seed: int, epoch: int, index: int, purpose: str) -> np.random.Generator:
    """A NumPy generator of its own for one (seed, epoch, index, purpose), for less simple laws."""
    key = words(seed, epoch, np.array([index]), purpose, 2)[0]
    return np.random.Generator(np.random.Philox(key=key))


def global_seed(seed: int, step: int, rank: int = 0) -> int:
    """The 63-bit seed that layers reading global generators (dropout) get before `step` on `rank`."""
    word = words(seed, step, np.array([rank]), "global-generators")[0, 0]
    return int(word >> np.uint64(1))


def content_key(seed: int, content_hash: str, purpose: str) -> int:
    """A 64-bit key of one file's content: equal bytes get equal keys wherever they lie."""
    return _hash64(f"{seed}/{purpose}/{content_hash}")


def _key(seed: int, epoch: int, purpose: str) -> np.uint64:
    return np.uint64(_hash64(f"{seed}/{epoch}/{purpose}"))


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: Words) -> Words:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * _MIX_1
        x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
