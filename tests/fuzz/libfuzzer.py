"""One run of libFuzzer over one target; needs atheris: `python -m tests.fuzz.libfuzzer TARGET [its own flags...]`.

Its own process, because libFuzzer ends the one it runs in.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["protectedservice_server", "tests.fuzz", "yaml"]):
    from .targets import TARGETS


def main() -> None:
    """Fuzz until a flag or a crash ends it."""
    name, *flags = sys.argv[1:]
    atheris.Setup([sys.argv[0], *flags], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
