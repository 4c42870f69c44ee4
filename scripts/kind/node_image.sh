#!/usr/bin/env bash
# Sourced. node_image: sets NODE_IMAGE, the image of a KIND node, and NODE_IMAGE_IS_MADE (true / false).
# Pulled where there is a registry; else made from Go modules and Debian packages: cold about 10 minutes on 2 cores,
# 1 minute with the programs cached, nothing when the engine has it.

node_image() {
  export NODE_IMAGE=$NODE_IMAGE_PULLED NODE_IMAGE_IS_MADE=false
  if docker image inspect "$NODE_IMAGE" >/dev/null 2>&1; then
    note "using $NODE_IMAGE, which Docker has"
    return
  fi
  local inputs
  inputs=$(key "$KUBERNETES_VERSION" "$KIND_VERSION" "$ETCD_VERSION" "$COREDNS_VERSION" "$LOCAL_PATH_VERSION" "$NODE_SUITE" \
    "$KIND_FOLDER/node_image.sh" "$KIND_FOLDER/assemble_node.sh" "$KIND_FOLDER/pause.go")
  if ! image_has_key "$NODE_IMAGE_MADE" "$inputs"; then
    pull "$NODE_IMAGE" && return
    { [ "$(id -u)" = 0 ] && debian_packages debootstrap jq; } ||
      fail "$NODE_IMAGE cannot be pulled, and only root on Debian can make one (debootstrap); remedies: pull it where there is a network, or run this as root"
    go_ready 'the node image'
    node_programs
    node_root
    node_assemble "$inputs"
  fi
  NODE_IMAGE=$NODE_IMAGE_MADE NODE_IMAGE_IS_MADE=true
  note "using $NODE_IMAGE, made here"
}

CONTROL_PLANE=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy)

node_programs() {
  local program
  for program in "${CONTROL_PLANE[@]}" kubelet kubeadm kubectl; do
    kubernetes_program "$program"
  done
  go_build etcd "$ETCD_VERSION" go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3
  go_build local-path-provisioner "$LOCAL_PATH_VERSION" github.com/rancher/local-path-provisioner github.com/rancher/local-path-provisioner
  go_build kind "$KIND_VERSION" sigs.k8s.io/kind sigs.k8s.io/kind # its module also holds the node's own files
  coredns_program
  pause_program
}

# k8s.io/kubernetes replaces its staging modules by folders; seen from outside, each becomes its published version.
kubernetes_program() {
  [ ! -x "$(binary "$1" "$KUBERNETES_VERSION")" ] || return 0
  local folder=$CACHE/modules/kubernetes/$KUBERNETES_VERSION source version=k8s.io/component-base/version
  if [ ! -f "$folder/go.sum" ]; then
    note "fetching the modules of Kubernetes $KUBERNETES_VERSION"
    mkdir -p "$folder"
    printf 'module build\n\ngo 1.24.0\n' >"$folder/go.mod"
    source=$(go mod download -C "$folder" -json "k8s.io/kubernetes@$KUBERNETES_VERSION" | jq -r .Dir)
    {
      printf 'module build\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes %s\n\nreplace (\n' "$KUBERNETES_VERSION"
      sed -n 's#^\t\(k8s.io/[a-z-]*\) => ./staging.*#\1#p' "$source/go.mod" | while read -r module; do
        printf '\t%s => %s v0.%s\n' "$module" "$module" "${KUBERNETES_VERSION#v1.}"
      done
      printf ')\n'
    } >"$folder/go.mod"
    cp --no-preserve=mode "$source/go.sum" "$folder/go.sum"
  fi
  go_compile "$1" "$KUBERNETES_VERSION" "$folder" "k8s.io/kubernetes/cmd/$1" \
    "-X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION") -X $version.gitTreeState=clean -X $version.gitCommit=registry"
}

coredns_program() { # only the plug-ins that a cluster's Corefile names
  local folder=$CACHE/modules/coredns/$COREDNS_VERSION plugin
  mkdir -p "$folder"
  printf 'module build\n\ngo 1.24.0\n\nrequire github.com/coredns/coredns %s\n' "$COREDNS_VERSION" >"$folder/go.mod"
  {
    printf 'package main\n\nimport (\n\t"github.com/coredns/coredns/coremain"\n'
    for plugin in cache errors forward health kubernetes loadbalance loop metrics ready reload; do
      printf '\t_ "github.com/coredns/coredns/plugin/%s"\n' "$plugin"
    done
    printf ')\n\nfunc main() { coremain.Run() }\n'
  } >"$folder/main.go"
  go_compile coredns "$COREDNS_VERSION" "$folder" .
}

pause_program() {
  PAUSE_VERSION=$(key "$KIND_FOLDER/pause.go")
  local folder=$CACHE/modules/pause/$PAUSE_VERSION
  mkdir -p "$folder"
  printf 'module pause\n\ngo 1.24\n' >"$folder/go.mod"
  cp "$KIND_FOLDER/pause.go" "$folder/main.go"
  go_compile pause "$PAUSE_VERSION" "$folder" .
}

NODE_PACKAGES=systemd,systemd-sysv,dbus,iproute2,iptables,kmod,conntrack,socat,ethtool,ebtables,containerd,runc,containernetworking-plugins,ca-certificates,procps,jq,curl,pigz,util-linux,mount,hostname

node_root() { # the node's root file system, as a tar
  NODE_ROOT=$CACHE/rootfs/$NODE_SUITE-node-$(key "$NODE_PACKAGES").tar
  [ ! -f "$NODE_ROOT" ] || return 0
  local root=$CACHE/rootfs/$NODE_SUITE-node.new
  note "the node's Debian packages (about 50 s)"
  rm -rf "$root"
  mkdir -p "$CACHE/rootfs"
  logged node-root debootstrap --variant=minbase --include="$NODE_PACKAGES" "$NODE_SUITE" "$root"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -cf "$NODE_ROOT.new" .
  mv "$NODE_ROOT.new" "$NODE_ROOT"
  rm -rf "$root"
}

# In the engine every intermediate image has a name of ours; only inside the node do they get the names that kubeadm asks for.
STAGE=protectedservice/node-stage

# program_image NAME PROGRAM VERSION BASE PATH: an image of one program.
program_image() {
  local context
  context=$(mktemp -d)
  cp "$(binary "$2" "$3")" "$context/$2"
  printf 'FROM %s\nENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\nCOPY %s %s\nENTRYPOINT ["%s"]\n' "$4" "$2" "$5" "$5" >"$context/Dockerfile"
  logged "image-$2" docker build -q -t "$STAGE/$1" "$context"
  rm -rf "$context"
}

node_assemble() {
  local work program official names=() kind_source
  work=$(mktemp -d)
  note 'images of the control plane'
  docker import - "$STAGE/root:latest" <"$NODE_ROOT" >/dev/null
  for program in kube-apiserver kube-controller-manager kube-scheduler; do
    program_image "$program" "$program" "$KUBERNETES_VERSION" scratch "/usr/local/bin/$program"
  done
  program_image kube-proxy kube-proxy "$KUBERNETES_VERSION" "$STAGE/root:latest" /usr/local/bin/kube-proxy
  program_image coredns coredns "$COREDNS_VERSION" scratch /coredns
  program_image etcd etcd "$ETCD_VERSION" scratch /usr/local/bin/etcd
  program_image pause pause "$PAUSE_VERSION" scratch /pause
  program_image local-path-provisioner local-path-provisioner "$LOCAL_PATH_VERSION" "$STAGE/root:latest" /usr/local/bin/local-path-provisioner
  for program in "${CONTROL_PLANE[@]}" coredns etcd pause local-path-provisioner; do names+=("$STAGE/$program"); done
  docker save -o "$work/images.tar" "${names[@]}"

  # "STAGED OFFICIAL" lines: what each is called inside the node.
  "$(binary kubeadm "$KUBERNETES_VERSION")" config images list --kubernetes-version "$KUBERNETES_VERSION" | while read -r official; do
    program=${official##*/}
    printf 'docker.io/%s/%s:latest %s\n' "$STAGE" "${program%%:*}" "$official"
  done >"$work/names"
  printf 'docker.io/%s/local-path-provisioner:latest docker.io/protectedservice/local-path-provisioner:%s\n' "$STAGE" "$LOCAL_PATH_VERSION" >>"$work/names"

  kind_source=$(cd "$CACHE/modules/kind/$KIND_VERSION" && GOFLAGS=-mod=mod go list -m -f '{{.Dir}}' sigs.k8s.io/kind)
  storage_manifest "$kind_source" >"$work/default-storage.yaml"
  mkdir "$work/programs"
  for program in kubelet kubeadm kubectl; do cp "$(binary "$program" "$KUBERNETES_VERSION")" "$work/programs/"; done
  printf '%s' "$KUBERNETES_VERSION" >"$work/version"

  note 'the node image'
  docker rm -f protectedservice-node-build >/dev/null 2>&1 || true
  docker run -d --name protectedservice-node-build --privileged --entrypoint sleep \
    -v "$work:/mnt/work:ro" -v "$kind_source/images/base/files:/mnt/files:ro" "$STAGE/root:latest" infinity >/dev/null
  logged node-assemble docker exec -i protectedservice-node-build bash -euo pipefail <"$KIND_FOLDER/assemble_node.sh"
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change 'ENV container docker' \
    --change "LABEL dev.protectedservice.key=$1" protectedservice-node-build "$NODE_IMAGE_MADE" >/dev/null
  docker rm -f protectedservice-node-build >/dev/null
  docker rmi "${names[@]}" "$STAGE/root:latest" >/dev/null
  rm -rf "$work"
}

# KIND's own storage manifest (volumes that a non-root pod can write; its built-in fallback makes root-owned ones), with our image in it.
storage_manifest() {
  python3 - "$1/pkg/build/nodeimage/const_storage.go" "docker.io/protectedservice/local-path-provisioner:$LOCAL_PATH_VERSION" <<'PY'
import re
import sys

source, image = sys.argv[1:]
with open(source) as file:
    manifest = file.read().split("const defaultStorageManifest = `", 1)[1]
manifest = re.sub(r"` \+ \w+ \+ `", image, manifest).split("`", 1)[0]
print(re.sub(r"\S*local-path-helper:\S+", image, manifest))
PY
}
