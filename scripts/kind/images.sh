#!/usr/bin/env bash
# Sourced. images_build [MORE...]: builds the product's images, and more: postgresql. image_names [MORE...]: their names, one a line.

image_version() { sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml; }

image_names() {
  local version
  version=$(image_version)
  printf "protectedservice/%s:$version\n" operator resource-server authorization-server "$@"
}

images_build() {
  local image program arguments=(--build-arg "BASE_IMAGE=$BASE_IMAGE") variable
  # --network=host: where the host reaches a package registry, so does the build, whatever its bridge can do.
  arguments+=(--network=host)
  for variable in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    [ -z "${!variable:-}" ] || arguments+=(--build-arg "$variable")
  done
  for image in $(image_names "$@"); do
    program=${image##*/}
    program=${program%%:*}
    note "building $image"
    logged "build-$program" docker build "${arguments[@]}" -t "$image" -f "${program//-/_}/Dockerfile" .
  done
}
