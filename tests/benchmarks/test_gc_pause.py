from __future__ import annotations

import gc

from benchmarks.gc_pause import longest_pause


def test_the_pause_is_measured_with_entries_of_the_servers_own_making() -> None:
    watched = len(gc.callbacks)
    try:
        assert longest_pause(500) > 0.0
    finally:
        gc.unfreeze()  # the program ends after one measurement; this process goes on
    assert len(gc.callbacks) == watched
