#!/usr/bin/env bash
# Renew the hashed requirement locks of the images, of the tests, of the benchmark and of the fuzzer: scripts/lock.sh [--upgrade]
# Needs uv (the only script that does). No index URL and no find-links line may get into a lock: it would name a host.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "lock: uv is not installed; remedy: pip install uv" >&2; exit 1; }
lock() { # file, extras...
  local output=requirements/$1.txt; shift
  local extras=(); for extra in "$@"; do extras+=(--extra "$extra"); done
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header --no-annotate "${UPGRADE[@]}" "${extras[@]}" pyproject.toml --output-file "$output"
  echo "wrote $output"
}
UPGRADE=("$@")
lock operator operator
lock server server
lock authorization_server authorization-server
# The benchmark runs our middleware under the peers' servers, so it needs what the middleware needs.
lock benchmarks server benchmarks
lock fuzz server fuzz
lock test operator server authorization-server test
