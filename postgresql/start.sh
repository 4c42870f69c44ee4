#!/usr/bin/env bash
# Runs PostgreSQL on a data folder that is made at the first start.
#   DATA_FOLDER     on a volume (default /data/postgresql)
#   PASSWORD_FILE   the password of the user and database authorization_server (default /run/secrets/database/password)
# The password is the file's at every start: one that was changed or made anew is taken over by a restart.
set -euo pipefail
umask 077
data=${DATA_FOLDER:-/data/postgresql}
password_file=${PASSWORD_FILE:-/run/secrets/database/password}
name=authorization_server
# The socket is for whoever is in this container already; everybody else comes by TCP and needs the password.
sockets=/tmp

[ -s "$password_file" ] || { echo "postgresql: $password_file is empty or not there; remedy: mount the Secret" >&2; exit 1; }

alone() { # one statement a line on standard input, without a server; nothing of them is logged
  postgres --single -D "$data" -c exit_on_error=on -c log_statement=none -c log_min_error_statement=panic \
    -c unix_socket_directories="$sockets" "$1" >/dev/null
}

if [ ! -d "$data" ]; then
  # Under another name until it is whole: a start that was killed half-way begins anew.
  whole=$data
  data=$whole.new
  rm -rf "$data"
  # The superuser has no password, so nobody is it by TCP.
  initdb -D "$data" --username=postgres --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8
  printf 'host %s %s all scram-sha-256\n' "$name" "$name" >>"$data/pg_hba.conf"
  printf 'CREATE ROLE %s LOGIN\nCREATE DATABASE %s OWNER %s\n' "$name" "$name" "$name" | alone postgres
  mv "$data" "$whole"
  data=$whole
fi

password=$(<"$password_file")
printf "ALTER ROLE %s PASSWORD '%s'\n" "$name" "${password//\'/\'\'}" | alone postgres

# Two replicas have 8 connections each.
exec postgres -D "$data" \
  -c listen_addresses='*' -c unix_socket_directories="$sockets" \
  -c max_connections=40 -c shared_buffers=32MB -c jit=off -c max_parallel_workers=0 \
  -c log_min_error_statement=panic -c log_min_duration_statement=-1
