#!/usr/bin/env bash
# The tests: scripts/test.sh [--fast|--all]
#   --fast   checks and the tests that need no cluster, but for the most thorough enumerations
#   default  the same and those, then the API-server and end-to-end tests on a KIND cluster of their own (made, used, removed)
#   --all    the same, with the slow tests too: real authorization servers of other people (Go, Java, Node), built or
#            fetched once, autoscaling by a real metrics-server, and fuzzing (scripts/fuzz.sh); those whose tools are
#            missing are skipped and say so
set -euo pipefail
cd "$(dirname "$0")/.."
level=default
case "${1:-}" in
  --fast) level=fast ;;
  --all) level=all ;;
  '') ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
started=$SECONDS
say() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - started)); }
say 'Python environment'
. scripts/venv.sh
say 'checks'
scripts/check.sh
say 'tests without a cluster'
without='cluster or slow'
[ "$level" != fast ] || without+=' or thorough'
.venv/bin/pytest -q -n auto --durations=5 -m "not ($without)"
if [ "$level" = all ]; then
  say 'tests against real authorization servers'
  .venv/bin/pytest -q --durations=5 -m 'slow and not cluster'
  say 'fuzzing'
  scripts/fuzz.sh
fi
if [ "$level" != fast ]; then
  say 'tests on a real cluster'
  if [ "$level" = all ]; then scripts/e2e_kind.sh --all; else scripts/e2e_kind.sh; fi
fi
say "all tests passed ($level)"
