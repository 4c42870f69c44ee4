#!/usr/bin/env bash
# Build the images: scripts/build_images.sh
# Tags: protectedservice/{operator,resource-server,authorization-server,postgresql}:VERSION, the version of pyproject.toml.
# BASE_IMAGE=NAME builds on another Debian 13 image than the one that is pulled or made.
set -euo pipefail
cd "$(dirname "$0")/.."
KIND_FOLDER=$PWD/scripts/kind
# shellcheck source=scripts/kind/say.sh
. "$KIND_FOLDER/say.sh"
# shellcheck source=scripts/kind/images.sh
. "$KIND_FOLDER/images.sh"
if [ -z "${BASE_IMAGE:-}" ]; then
  # shellcheck source=scripts/kind/versions.sh
  . "$KIND_FOLDER/versions.sh"
  # shellcheck source=scripts/kind/engine.sh
  . "$KIND_FOLDER/engine.sh"
  # shellcheck source=scripts/kind/base_image.sh
  . "$KIND_FOLDER/base_image.sh"
  lock setup
  engine_ready
  base_image
  unlock setup
fi
images_build postgresql # only k8s/authorization_server_postgresql uses that one
