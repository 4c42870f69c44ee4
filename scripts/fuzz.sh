#!/usr/bin/env bash
# Coverage-guided fuzzing (atheris) of what reads hostile bytes in the resource server: scripts/fuzz.sh [SECONDS]
#   SECONDS   for each target (20). The oracles are in tests/fuzz; corpus and faults are kept in the cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/kind/say.sh
seconds=${1:-20}
[[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || { sed -n '2,3s/^# \{0,1\}//p' "$0"; exit 2; }
python=$(command -v python3) || fail 'python3 is not on PATH; remedy: install Python 3.11 or newer'
# atheris is published for these alone, and building it needs a whole LLVM.
if ! "$python" -c 'import platform, sys; sys.exit((sys.platform, platform.machine()) != ("linux", "x86_64") or not (3, 11) <= sys.version_info < (3, 14))'; then
  echo "fuzz: skipped: atheris is published for Linux on x86_64 with Python 3.11 to 3.13, and this is $(uname -sm) with $("$python" -V)"
  exit 0
fi
venv=$CACHE/fuzz/venv-$(key requirements/fuzz.txt "$("$python" -VV)")
lock fuzz
if [ ! -e "$venv/complete" ]; then
  echo 'fuzz: installing requirements/fuzz.txt'
  logged fuzz-venv "$python" -m venv --clear "$venv"
  logged fuzz-install "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/fuzz.txt
  touch "$venv/complete"
fi
PYTHONPATH=$PWD/resource_server:$PWD "$venv/bin/python" -m tests.fuzz --seconds "$seconds"
