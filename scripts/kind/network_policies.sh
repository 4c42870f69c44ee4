#!/usr/bin/env bash
# Sourced. network_policies NAME: the cluster enforces NetworkPolicies afterwards. KIND's own image does so by itself; ours
# has a static CNI, which knows none, and gets kube-network-policies, built from its Go module (cold about a minute).

network_policies() {
  if [ "$NODE_IMAGE_IS_MADE" = false ]; then
    note "KIND's own network enforces them"
    return
  fi
  node_program_image "$1" kube-network-policies "$NETWORK_POLICIES_VERSION" sigs.k8s.io/kube-network-policies/cmd sigs.k8s.io/kube-network-policies
  sed "s#VERSION#$NETWORK_POLICIES_VERSION#" "$KIND_FOLDER/network_policies.yaml" | logged network-policies kubectl apply --server-side --force-conflicts -f -
  # The program's own rules need nftables' queue, which some kernels lack. iptables' does the same, behind the Services'
  # addresses and before masquerading; the node's own connections, such as probes, are not forwarded and so not judged.
  local node rule=(FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass)
  node=$(cluster_node "$1")
  docker exec "$node" iptables -w -t mangle -C "${rule[@]}" 2>/dev/null ||
    logged network-policies-queue docker exec "$node" iptables -w -t mangle -A "${rule[@]}"
  logged network-policies-wait kubectl -n kube-system rollout status daemonset/kube-network-policies --timeout=90s
}

# node_program_image NAME PROGRAM VERSION PACKAGE MODULE: protectedservice/PROGRAM:VERSION, an image of that Go program alone,
# in the cluster; made once, as long as the engine keeps it.
node_program_image() {
  local image=protectedservice/$2:$3 context
  if ! image_has_key "$image" "$3"; then
    go_ready "$2"
    go_build "$2" "$3" "$4" "$5"
    context=$(mktemp -d)
    cp "$(binary "$2" "$3")" "$context/$2"
    printf 'FROM scratch\nLABEL dev.protectedservice.key=%s\nCOPY %s /%s\nENTRYPOINT ["/%s"]\n' "$3" "$2" "$2" "$2" >"$context/Dockerfile"
    logged "image-$2" docker build -q -t "$image" "$context"
    rm -rf "$context"
  fi
  cluster_load "$1" "$image"
}
