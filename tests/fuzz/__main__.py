"""Fuzz the readers of hostile bytes, or see a fault again.

python -m tests.fuzz [TARGET...] [--seconds N | --replay FILE]

Without a target: all of them. Fuzzing needs atheris (scripts/fuzz.sh brings it), a replay does not. The exit code is 1
if there was a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import campaign
from .targets import TARGETS

TAIL = 6000  # characters of libFuzzer's output that a fault shows


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (20)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="check the bytes of FILE against one target")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if asked.seconds < 1:
        parser.error("--seconds must be at least 1")
    if asked.replay is not None:
        if len(asked.targets) != 1:
            parser.error("--replay needs exactly one target")
        TARGETS[asked.targets[0]].check(asked.replay.read_bytes())
        print(f"{asked.targets[0]}: no fault in {asked.replay}")
        return 0
    faulty = [name for name in asked.targets or TARGETS if not _fuzz(name, asked.seconds)]
    if faulty:
        print(f"fuzz: faults in {', '.join(faulty)}", file=sys.stderr)
    return 1 if faulty else 0


def _fuzz(name: str, seconds: int) -> bool:
    found = campaign.run(TARGETS[name], seconds)
    print(
        f"{name:<22}{found.executions:>10} executions in {seconds} s  {'FAULT' if found.failed else 'ok'}", flush=True
    )
    if not found.failed:
        return True
    print(found.output[-TAIL:], file=sys.stderr)
    if found.fault is not None:
        print(f"again: .venv/bin/python -m tests.fuzz {name} --replay {found.fault}", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
