#!/usr/bin/env bash
# Sourced. go_ready: `go` new enough is on PATH. kind_ready, kubectl_ready: the same for kind and kubectl.
# go_build: builds a program of a Go module into the cache, once per version.

BINARIES=$CACHE/binaries # one folder per program and version, so that a folder can be put on PATH

# at_least HAVE WANT: compares dotted versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# binary NAME VERSION: where that program is kept.
binary() { printf '%s/%s/%s/%s' "$BINARIES" "$1" "$2" "$1"; }

go_version() { GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//'; }

go_on_path() { # the first Go that is new enough, wherever it is usually installed
  local candidate version
  for candidate in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
    [ -x "$candidate" ] || continue
    version=$(go_version "$candidate")
    if [ -n "$version" ] && at_least "$version" "$GO_OLDEST"; then
      PATH=$(dirname "$candidate"):$PATH
      export PATH
      return 0
    fi
  done
  return 1
}

go_ready() {
  go_on_path && return
  if have apt-get && [ "$(id -u)" = 0 ]; then
    logged apt-update apt-get update -qq
    local minor
    for minor in 27 26 25 24; do
      apt-cache show "golang-1.$minor-go" >/dev/null 2>&1 || continue
      debian_packages "golang-1.$minor-go" && go_on_path && return
    done
  fi
  fail "Go $GO_OLDEST or newer is needed to build $1 and neither this machine nor its Debian has it; remedies: install Go, or make image registries reachable and install kind"
}

# go_build NAME VERSION PACKAGE MODULE: MODULE is required by a throw-away module, as `go install` refuses modules with replacements.
go_build() {
  local name=$1 version=$2 package=$3 module=$4 target folder
  target=$(binary "$name" "$version")
  [ -x "$target" ] && return
  folder=$CACHE/modules/$name/$version
  mkdir -p "$folder"
  printf 'module build\n\ngo 1.24.0\n\nrequire %s %s\n' "$module" "$version" >"$folder/go.mod"
  go_compile "$name" "$version" "$folder" "$package"
}

# go_compile NAME VERSION FOLDER PACKAGE [LDFLAGS]: compiles in that folder; the program appears whole or not at all.
go_compile() {
  local target
  target=$(binary "$1" "$2")
  [ -x "$target" ] && return
  note "go build $1 $2"
  mkdir -p "$(dirname "$target")"
  CGO_ENABLED=0 GOFLAGS='-mod=mod -buildvcs=false' \
    logged "build-$1" go build -C "$3" -trimpath -ldflags "-s -w ${5:-}" -o "$target.new" "$4"
  mv "$target.new" "$target"
}

kind_ready() {
  local version
  if have kind; then
    version=$(kind version -q 2>/dev/null || true)
    if [ -n "$version" ] && at_least "${version#v}" "$KIND_OLDEST"; then
      note "using $(command -v kind) $version"
      return
    fi
    note "kind ${version:-of unknown version} on PATH is older than $KIND_OLDEST: not used"
  fi
  if [ ! -x "$(binary kind "$KIND_VERSION")" ]; then
    go_ready kind
    go_build kind "$KIND_VERSION" sigs.k8s.io/kind sigs.k8s.io/kind
  fi
  PATH=$BINARIES/kind/$KIND_VERSION:$PATH
  export PATH
  note "using kind $KIND_VERSION, built from its Go module"
}

# kubectl_ready NODE_IMAGE: the one on PATH when it is within a minor version of the cluster, else the node image's own.
kubectl_ready() {
  local minor wanted version target container
  wanted=$(cut -d. -f2 <<<"$KUBERNETES_VERSION")
  if have kubectl; then
    minor=$(kubectl version --client -o json 2>/dev/null | sed -n 's/.*"minor": "\([0-9]*\).*/\1/p' | head -n 1)
    if [ -n "$minor" ] && [ "$minor" -ge $((wanted - 1)) ] && [ "$minor" -le $((wanted + 1)) ]; then
      note "using $(command -v kubectl) 1.$minor"
      return
    fi
  fi
  [ "$(uname -s)" = Linux ] || fail "kubectl 1.$wanted is not on PATH (or is too far from the cluster's version); remedy: install it"
  version=$(docker image inspect -f '{{.Id}}' "$1" | cut -d: -f2 | cut -c1-12)
  target=$(binary kubectl "$version")
  if [ ! -x "$target" ]; then
    mkdir -p "$(dirname "$target")"
    container=$(docker create "$1" true)
    docker cp -q "$container:/usr/bin/kubectl" "$target.new" >/dev/null
    docker rm "$container" >/dev/null
    mv "$target.new" "$target"
  fi
  PATH=$(dirname "$target"):$PATH
  export PATH
  note "using the node image's own kubectl ($(kubectl version --client -o json | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p' | head -n 1))"
}
