"""Inputs made from seeds by chance, the same at every run: a fuzzer without coverage, for every run of the tests."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .targets import Target


def mutations(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs, each a seed with one to six changes."""
    chance = random.Random(seed)  # noqa: S311 no secret
    for _ in range(count):
        data = bytearray(chance.choice(target.seeds))
        for _ in range(chance.randint(1, 6)):
            _change(data, target, chance)
        yield bytes(data[: target.longest])


def _change(data: bytearray, target: Target, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(6):
        case 0:
            data[place:place] = chance.choice(target.words)
        case 1:
            del data[place : place + chance.choice((1, 1, 2, 8))]
        case 2:
            data[place : place + 1] = bytes([chance.randrange(256)])
        case 3:
            word = chance.choice(target.words)
            data[place : place + len(word)] = word
        case 4:  # a part of its own again
            start = chance.randrange(len(data) + 1)
            data[place:place] = data[start : start + chance.choice((1, 4, 16, 64))]
        case _:  # the end of another one
            other = chance.choice(target.seeds)
            data[place:] = other[chance.randrange(len(other) + 1) :]
