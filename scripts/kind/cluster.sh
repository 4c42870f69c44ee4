#!/usr/bin/env bash
# Sourced. cluster_up NAME: a cluster of ours of that name runs afterwards, and KUBECONFIG names it (never the user's own file).
# cluster_down NAME removes it. A cluster that these scripts did not make is refused by both: ours carry a mount of our folder.

cluster_node() { printf '%s-control-plane' "$1"; }
cluster_folder() { printf '%s/clusters/%s' "$CACHE" "$1"; }
cluster_exists() { docker inspect --type container "$(cluster_node "$1")" >/dev/null 2>&1; }

cluster_is_ours() {
  local source
  source=$(docker inspect --type container -f '{{range .Mounts}}{{if eq .Destination "/etc/protectedservice-cluster"}}{{.Source}}{{end}}{{end}}' "$(cluster_node "$1")")
  # Docker Desktop puts a prefix before the path.
  [[ -n $source && $source == *"$(cluster_folder "$1")/node" ]]
}

cluster_refuse_foreign() {
  ! cluster_exists "$1" || cluster_is_ours "$1" ||
    fail "the KIND cluster \"$1\" was not made by these scripts (of this user): not touched; remedy: if it may go, kind delete cluster --name $1"
}

cluster_answers() { kubectl --request-timeout=5s get --raw /readyz; }

cluster_up() {
  local name=$1 folder inputs
  folder=$(cluster_folder "$name")
  cluster_refuse_foreign "$name"
  export KUBECONFIG=$folder/kubeconfig
  inputs=$(key "$KIND_FOLDER/cluster.yaml" "$KIND_FOLDER/audit-policy.yaml" "$(docker image inspect -f '{{.Id}}' "$NODE_IMAGE")")
  if cluster_exists "$name"; then
    if [ "$(cat "$folder/node/key" 2>/dev/null)" = "$inputs" ] && cluster_resume "$name"; then
      note "using the cluster $name, made earlier"
      return
    fi
    note "the cluster $name is of other versions, unfinished or does not answer: making it anew"
    cluster_delete "$name"
  fi
  rm -rf "$folder"
  mkdir -p "$folder/node"
  cp "$KIND_FOLDER/audit-policy.yaml" "$folder/node/"
  sed "s#NODE_IMAGE_IS_MADE#$NODE_IMAGE_IS_MADE#; s#NODE_FOLDER#$folder/node#" "$KIND_FOLDER/cluster.yaml" >"$folder/cluster.yaml"
  note "creating the cluster $name and waiting for its node (about 30 s)"
  if ! kind create cluster --name "$name" --image "$NODE_IMAGE" --config "$folder/cluster.yaml" --kubeconfig "$KUBECONFIG" --wait 180s \
    >"$CACHE/logs/cluster-$name.log" 2>&1; then
    tail -n 25 "$CACHE/logs/cluster-$name.log" >&2
    fail "the cluster $name could not be made (whole output: $CACHE/logs/cluster-$name.log)"
  fi
  printf '%s' "$inputs" >"$folder/node/key" # last: without it the next run starts anew
}

cluster_resume() { # true when the cluster answers, after starting its node if need be
  local node
  node=$(cluster_node "$1")
  if [ "$(docker inspect --type container -f '{{.State.Running}}' "$node")" != true ]; then
    note "starting the stopped node $node"
    docker start "$node" >/dev/null || return 1
  fi
  kind export kubeconfig --name "$1" --kubeconfig "$KUBECONFIG" >/dev/null 2>&1 || return 1
  wait_until 90 cluster_answers
}

cluster_delete() {
  logged "delete-$1" kind delete cluster --name "$1" --kubeconfig "$(cluster_folder "$1")/kubeconfig"
}

cluster_down() {
  cluster_refuse_foreign "$1"
  if cluster_exists "$1"; then
    note "deleting the cluster $1"
    cluster_delete "$1"
  else
    note "there is no cluster $1"
  fi
  rm -rf "$(cluster_folder "$1")"
}

# cluster_load NAME IMAGE...: loads what the node does not have. Pods of an image that changed under the same name are replaced.
cluster_load() {
  local name=$1 node present image wanted had namespace pod images missing=() changed=()
  node=$(cluster_node "$name")
  present=$(docker exec "$node" ctr --namespace=k8s.io images ls)
  shift
  for image in "$@"; do
    wanted=$(docker image inspect -f '{{.Id}}' "$image")
    # The kubelet's view of an image is a second name, its id, of the same digest.
    had=$(awk -v name="docker.io/$image" '$1 == name {print $3}' <<<"$present")
    [ -z "$had" ] || [ "$(awk -v name="$wanted" '$1 == name {print $3}' <<<"$present")" != "$had" ] || continue
    missing+=("$image")
    [ -z "$had" ] || changed+=("$image")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    note 'the node has them already'
    return
  fi
  note "loading ${missing[*]}"
  logged load-images kind load docker-image --name "$name" "${missing[@]}"
  [ ${#changed[@]} -gt 0 ] || return 0
  # Waits until they are gone: a Deployment then knows that it must make new ones, and a rollout is not "done" with the old.
  kubectl get pods --all-namespaces -o jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name} {.spec.initContainers[*].image} {.spec.containers[*].image}{"\n"}{end}' |
    while read -r namespace pod images; do
      for image in "${changed[@]}"; do
        [[ " $images " != *" $image "* ]] || printf '%s %s\n' "$namespace" "$pod"
      done
    done | sort -u >"$CACHE/logs/replaced-pods"
  note "replacing $(wc -l <"$CACHE/logs/replaced-pods") pods whose image changed"
  while read -r namespace pod; do
    kubectl -n "$namespace" delete pod "$pod" --ignore-not-found --timeout=120s >/dev/null &
  done <"$CACHE/logs/replaced-pods"
  wait
}
