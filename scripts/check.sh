#!/usr/bin/env bash
# Everything a machine can check without running the product: format, lint, types, layers, shell, YAML, locks.
# `scripts/check.sh --fix` mends what can be mended by itself.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
python=(operator/protectedservice_operator resource_server/protectedservice_server authorization_server tests benchmarks)
typed=("${python[@]}")
compgen -G 'scripts/*.py' >/dev/null && python+=(scripts)
if [ "${1:-}" = --fix ]; then
  .venv/bin/ruff format "${python[@]}"
  .venv/bin/ruff check --fix "${python[@]}" || true
fi
failed=()
run() { # name, command...
  local name=$1; shift
  if "$@" >"$log" 2>&1; then printf 'ok    %s\n' "$name"; else printf 'FAIL  %s\n' "$name"; cat "$log"; failed+=("$name"); fi
}
log=$(mktemp); trap 'rm -f "$log"' EXIT
shell_files() { git ls-files --cached --others --exclude-standard | while read -r f; do
  if [ -f "$f" ] && head -c 64 "$f" | head -n 1 | grep -qE '^#!.*\b(ba)?sh\b'; then printf '%s\n' "$f"; fi; done; }
mapfile -t shell < <(shell_files)
mapfile -t yaml < <(git ls-files --cached --others --exclude-standard '*.yaml' '*.yml')
run 'format (ruff)' .venv/bin/ruff format --check "${python[@]}"
run 'lint (ruff)' .venv/bin/ruff check "${python[@]}"
run 'types (mypy --strict)' .venv/bin/mypy "${typed[@]}"
run 'layers (import-linter)' .venv/bin/lint-imports
run 'shell (shellcheck)' .venv/bin/shellcheck -x "${shell[@]}"
run 'yaml (yamllint)' .venv/bin/yamllint --strict "${yaml[@]}"
no_hosts() { ! git grep -nIE --untracked 'https?://[a-z0-9.-]*(pypi|pythonhosted|npmjs|crates|proxy\.golang|sum\.golang|maven|deb\.debian)[a-z0-9.-]*' -- . ':!scripts/check.sh'; }
no_paths() { ! git grep -nIE --untracked '(^|[^a-zA-Z0-9_.])/(work|root|farm)/[a-zA-Z.]' -- . ':!scripts/check.sh'; }
run 'no registry host is named' no_hosts
run 'no path of one machine is named' no_paths
if [ ${#failed[@]} -gt 0 ]; then printf 'check: failed: %s\n' "${failed[*]}"; exit 1; fi
echo 'check: all good'
