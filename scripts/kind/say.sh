#!/usr/bin/env bash
# Sourced by every script here: where things are kept, how progress and failure are said, locks between runs.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/protectedservice
export CACHE
mkdir -p "$CACHE/locks" "$CACHE/logs" "$CACHE/clusters"

STEP=0
STEPS=0

# steps N: how many steps the script has.
steps() { STEPS=$1; }

# step TEXT: the next step begins.
step() {
  STEP=$((STEP + 1))
  printf '[%d/%d] %4d s  %s\n' "$STEP" "$STEPS" "$SECONDS" "$*"
}

# note TEXT: what this step found, does or waits for.
note() { printf '      %4d s    %s\n' "$SECONDS" "$*"; }

# fail TEXT: one clear line with the remedy, then the end.
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# logged NAME COMMAND...: runs it with its output in a log file; a failure shows the log's end and ends the script.
logged() {
  local log=$CACHE/logs/$1.log
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    fail "failed: $1 (whole output: $log)"
  fi
}

# wait_until SECONDS COMMAND...: asks every half second; false when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.5
  done
}

# key TEXT_OR_FILE...: a short hash of the contents of the files and of the other words.
key() {
  local part
  for part in "$@"; do
    if [ -f "$part" ]; then cat "$part"; else printf '%s\n' "$part"; fi
  done | sha256sum | cut -c1-16
}

# lock NAME / unlock NAME: two runs at once take turns. Where there is no flock (macOS) nothing is locked.
declare -A LOCKS=()
lock() {
  have flock || return 0
  local fd
  exec {fd}>"$CACHE/locks/$1"
  if ! flock --nonblock "$fd"; then
    note "waiting for another run that holds the lock \"$1\""
    flock "$fd"
  fi
  LOCKS[$1]=$fd
}
unlock() {
  local fd=${LOCKS[$1]:-}
  [ -n "$fd" ] || return 0
  exec {fd}>&-
  unset "LOCKS[$1]"
}

# debian_packages PACKAGE...: installs what is missing; true when all are there.
debian_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  { have apt-get && [ "$(id -u)" = 0 ]; } || return 1
  note "apt-get install ${missing[*]}"
  logged apt-update apt-get update -qq
  DEBIAN_FRONTEND=noninteractive logged apt-install apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# pull IMAGE: true when the engine has it afterwards. A registry that does not answer costs 20 s at the most; one that
# does may take 15 minutes for the layers.
pull() {
  docker image inspect "$1" >/dev/null 2>&1 && return 0
  local log pid first=$((SECONDS + 20)) last=$((SECONDS + 900)) state=0
  log=$CACHE/logs/pull-$(key "$1").log
  note "pulling $1"
  docker pull "$1" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if { [ "$SECONDS" -ge "$first" ] && ! grep -q 'Pulling from' "$log"; } || [ "$SECONDS" -ge "$last" ]; then
      kill "$pid" 2>/dev/null || true
    fi
    sleep 0.2
  done
  wait "$pid" || state=$?
  [ "$state" = 0 ] || note "not pulled: $(tail -n 1 "$log" | cut -c1-160)"
  return "$state"
}

# image_has_key IMAGE KEY: true when the engine's image was made by these scripts from just these inputs.
image_has_key() {
  [ "$(docker image inspect -f '{{index .Config.Labels "dev.protectedservice.key"}}' "$1" 2>/dev/null)" = "$2" ]
}
