#!/usr/bin/env bash
# Sourced. engine_ready: a container engine answers afterwards: the running Docker, Debian's service, or one started by hand.
# engine_stop: stops the one that was started by hand, if nothing runs in it.

ENGINE_FOLDER=$CACHE/engine
# Sockets live here, whose path must stay short; a restart of the machine empties it, as it should.
ENGINE_RUN=/run/protectedservice

engine_answers() { have docker && timeout 20 docker info >/dev/null 2>&1; }

engine_ready() {
  if engine_answers; then
    note "using the running Docker $(docker version -f '{{.Server.Version}}')"
    return
  fi
  [ -z "${DOCKER_HOST:-}" ] || fail "Docker at DOCKER_HOST=$DOCKER_HOST does not answer; start it, or unset DOCKER_HOST"
  [ "$(id -u)" = 0 ] || fail "no Docker answers and only root can start one; remedies: start Docker and join its group (\"docker info\" must work), or run this as root on Debian"
  if ! have dockerd || ! have docker; then
    debian_packages docker.io containerd runc iptables iproute2 ||
      fail "no Docker here, and no apt-get to install it with; remedy: install Docker and start it (\"docker info\" must work)"
  fi
  if [ -d /run/systemd/system ]; then
    note "starting the docker service"
    logged engine systemctl start docker
    wait_until 60 engine_answers || fail "the docker service was started but does not answer; see: journalctl -u docker"
  else
    engine_start
  fi
}

engine_start() {
  note "starting dockerd by hand (data in $ENGINE_FOLDER)"
  mkdir -p "$ENGINE_FOLDER" "$ENGINE_RUN"
  # A copy, so that the engine outlives this checkout.
  install -m 755 "$KIND_FOLDER/runc-available-caps" "$ENGINE_FOLDER/runc-available-caps"
  (
    # Our locks end with this script; the engine does not.
    for fd in "${LOCKS[@]}"; do exec {fd}>&-; done
    exec nohup setsid dockerd --data-root "$ENGINE_FOLDER/data" --exec-root "$ENGINE_RUN/exec" --pidfile "$ENGINE_RUN/dockerd.pid" \
      --add-runtime "available-caps=$ENGINE_FOLDER/runc-available-caps" --default-runtime available-caps \
      -H unix:///var/run/docker.sock </dev/null >"$CACHE/logs/dockerd.log" 2>&1
  ) &
  if ! wait_until 60 engine_answers; then
    tail -n 20 "$CACHE/logs/dockerd.log" >&2
    fail "dockerd does not answer after 60 s (whole output: $CACHE/logs/dockerd.log)"
  fi
}

engine_stop() {
  local pid
  pid=$(cat "$ENGINE_RUN/dockerd.pid" 2>/dev/null) || return 0
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
  if [ -n "$(docker ps -q)" ]; then
    note "the engine that was started here stays: containers are running in it"
    return 0
  fi
  note "stopping the engine that was started here (process $pid)"
  kill "$pid"
  wait_until 30 test ! -d "/proc/$pid" || fail "dockerd (process $pid) did not stop within 30 s; see $CACHE/logs/dockerd.log"
}
