#!/usr/bin/env bash
# Sourced, or run: .venv holds the locked test requirements and this project, editable. Made anew only when the lock or pyproject.toml changed.
# Nothing is printed when it is up to date.

venv_ready() {
  local root wanted python
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  wanted=$(cat "$root/requirements/test.txt" "$root/pyproject.toml" | sha256sum | cut -c1-16)
  [ "$(cat "$root/.venv/protectedservice.stamp" 2>/dev/null)" != "$wanted" ] || return 0
  python=$(command -v python3) || { echo 'venv: python3 is not on PATH; remedy: install Python 3.11 or newer' >&2; return 1; }
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "venv: $python is older than 3.11; remedy: put a newer python3 first on PATH" >&2; return 1; }
  if [ ! -x "$root/.venv/bin/pip" ]; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
      # Debian keeps it in a package of its own.
      { command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; } ||
        { echo 'venv: this Python has no ensurepip; remedy: apt-get install python3-venv' >&2; return 1; }
      apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null || return 1
    fi
    echo 'venv: making .venv'
    "$python" -m venv "$root/.venv" || return 1
  fi
  echo 'venv: installing requirements/test.txt and this project'
  "$root/.venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$root/requirements/test.txt" || return 1
  "$root/.venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -e "$root" || return 1
  printf '%s' "$wanted" >"$root/.venv/protectedservice.stamp"
}

venv_ready
