"""Run in the server's own environment: the longest pause of Python's collector while 1 M tokens are remembered.

    .venv/bin/python benchmarks/gc_pause.py 1000000

In-process, because a million introspections by HTTP take minutes, and because the server remembers at most 50,000: what
is asked is whether the entries would allow more. Entries are made as the server makes them, out of answers' bytes, and
the collector is set as in `main`.
"""

from __future__ import annotations

import gc
import json
import sys
import time

from protectedservice_server.cache import Cache, key_of
from protectedservice_server.introspection_response import facts_of


def longest_pause(tokens: int) -> float:
    """Milliseconds: of the collections while the cache fills, and of one full collection when it is full."""
    gc.collect()
    gc.freeze()
    pauses = [0.0]
    began = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        del info
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - began)

    cache = Cache(3600.0, most_active=tokens)
    gc.callbacks.append(watch)
    try:
        for number in range(tokens):
            answer = {"active": True, "scope": "read write", "client_id": "caller", "sub": f"user-{number}"}
            facts = facts_of(json.dumps(answer).encode())
            cache.put(key_of(f"good-{number:07d}"), facts, 0.0, 3600.0)
        gc.collect()
    finally:
        gc.callbacks.remove(watch)
    if cache.sizes()[0] != tokens:
        raise SystemExit(f"the cache holds {cache.sizes()[0]} of {tokens} tokens: the pause would say nothing")
    return max(pauses) * 1e3


if __name__ == "__main__":
    print(longest_pause(int(sys.argv[1])))
