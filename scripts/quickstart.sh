#!/usr/bin/env bash
# From a bare machine to the proof: scripts/quickstart.sh [--down]
#   A real Kubernetes cluster (KIND, "protectedservice"), the operator, an authorization server, one protected service, and the
#   proof: 401 without a token, 200 with one, 401 once it is revoked. Safe to repeat; only a cluster of its own is ever touched.
#   --down   remove what it made; images and caches stay for the next time
set -euo pipefail
cd "$(dirname "$0")/.."
KIND_FOLDER=$PWD/scripts/kind
for part in say versions engine tools node_image base_image images cluster install; do
  # shellcheck disable=SC1090
  . "$KIND_FOLDER/$part.sh"
done
CLUSTER=protectedservice

down() {
  steps 1
  step "Removing the cluster $CLUSTER"
  if ! engine_answers; then
    note 'no Docker answers, so there is no cluster to remove'
    return
  fi
  lock "cluster-$CLUSTER"
  lock setup
  have kind || kind_ready
  cluster_down "$CLUSTER"
  engine_stop
  printf '\nRemoved. Images and caches stay for the next time; to remove those too: rm -rf %s\n' "$CACHE"
}

up() {
  steps 9
  lock "cluster-$CLUSTER"
  lock setup
  step 'Container engine'
  engine_ready
  step 'Tools and node image'
  kind_ready
  node_image
  kubectl_ready "$NODE_IMAGE"
  step 'Base image'
  base_image
  unlock setup
  step 'Images of this project'
  images_build
  step "Cluster $CLUSTER"
  cluster_up "$CLUSTER"
  step 'Images into the cluster'
  mapfile -t images < <(image_names)
  cluster_load "$CLUSTER" "${images[@]}"
  step 'Operator and authorization server'
  install_product quickstart
  step 'One protected service (k8s/examples/smallest.yaml, namespace demo)'
  demo
  step 'The proof'
  local verdict=0
  python3 scripts/proof.py --namespace demo orders || verdict=$?
  if [ "$verdict" != 0 ]; then
    cluster_state "${SYSTEM_NAMESPACES[@]}" demo
    printf '\nFAIL after %d s\n' "$SECONDS"
    exit 1
  fi
  printf '\nPASS after %d s. Look around, then remove it with scripts/quickstart.sh --down:\n' "$SECONDS"
  # shellcheck disable=SC2016 # the reader's shell expands it
  printf '  export KUBECONFIG=%q PATH=%q:"$PATH"\n' "$KUBECONFIG" "$(dirname "$(command -v kubectl)")"
  printf '  kubectl -n demo get protectedservices\n'
}

demo() {
  local started known=false workload
  kubectl get namespace demo >/dev/null 2>&1 || kubectl create namespace demo >/dev/null
  kubectl label --overwrite namespace demo pod-security.kubernetes.io/enforce=restricted >/dev/null
  logged demo-upstream kubectl -n demo apply --server-side -f k8s/examples/upstream.yaml
  logged demo-rollout kubectl -n demo rollout status deployment/orders --timeout=120s
  if kubectl -n demo get protectedservice orders >/dev/null 2>&1; then known=true; fi
  started=$(date +%s%N)
  logged demo kubectl -n demo apply --server-side -f k8s/examples/smallest.yaml
  note 'waiting for protectedservice/orders to be Ready'
  if ! kubectl -n demo wait --for=condition=Ready --timeout=120s protectedservice/orders >"$CACHE/logs/demo-ready.log" 2>&1; then
    kubectl -n demo get protectedservice orders -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}' >&2 || true
    cluster_state "${SYSTEM_NAMESPACES[@]}" demo
    fail 'protectedservice/orders is not Ready after 120 s; its conditions and the state of the cluster are above'
  fi
  [ "$known" = true ] || note "Ready $((($(date +%s%N) - started) / 1000000)) ms after kubectl apply"
  for workload in $(kubectl -n demo get deployments -o name); do
    logged demo-workload kubectl -n demo rollout status "$workload" --timeout=120s
  done
}

case "${1:-}" in
  '') up ;;
  --down) down ;;
  *)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
