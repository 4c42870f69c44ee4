#!/usr/bin/env bash
# The tests on a real cluster: scripts/e2e_kind.sh [--all] [--keep-cluster] [--keep-namespace] [-- PYTEST ARGUMENTS]
#   A fresh KIND cluster "protectedservice-e2e", the product in it, then pytest -m cluster; the cluster is removed at the end.
#   --all              the slow ones too: autoscaling, with a metrics-server built from its Go module
#   --keep-cluster     leave the cluster, and use it again next time
#   --keep-namespace   leave the namespaces of the tests, to look at
set -euo pipefail
cd "$(dirname "$0")/.."
KIND_FOLDER=$PWD/scripts/kind
for part in say versions engine tools node_image base_image images cluster network_policies metrics_server install; do
  # shellcheck disable=SC1090
  . "$KIND_FOLDER/$part.sh"
done
CLUSTER=protectedservice-e2e
keep_cluster=false
all=false
while [ $# -gt 0 ]; do
  case $1 in
    --all) all=true ;;
    --keep-cluster) keep_cluster=true ;;
    --keep-namespace) export PROTECTEDSERVICE_E2E_KEEP_NAMESPACE=1 ;;
    --)
      shift
      break
      ;;
    *)
      sed -n '2,6s/^# \{0,1\}//p' "$0"
      exit 2
      ;;
  esac
  shift
done

steps 10
lock "cluster-$CLUSTER"
lock setup
step 'Python environment'
. scripts/venv.sh
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
images_build postgresql
step "Cluster $CLUSTER"
cluster_refuse_foreign "$CLUSTER"
remove_cluster() {
  if [ "$keep_cluster" = true ]; then
    printf '\nThe cluster stays. To look around: export KUBECONFIG=%q\nTo remove it: kind delete cluster --name %s\n' "$KUBECONFIG" "$CLUSTER"
  else
    cluster_down "$CLUSTER"
  fi
}
trap remove_cluster EXIT
# Fresh, unless the caller keeps one: also when an earlier run was killed before it could remove its own.
if [ "$keep_cluster" = false ] && cluster_exists "$CLUSTER"; then cluster_down "$CLUSTER"; fi
cluster_up "$CLUSTER"
step 'Images into the cluster'
mapfile -t images < <(image_names postgresql)
cluster_load "$CLUSTER" "${images[@]}"
step 'NetworkPolicies are enforced'
network_policies "$CLUSTER"
wanted='cluster and not slow'
if [ "$all" = true ]; then
  wanted=cluster
  note 'CPU time is measured'
  metrics_server "$CLUSTER"
fi
step 'Operator and authorization server'
install_product e2e
step 'Tests'
export PROTECTEDSERVICE_E2E_CLUSTER=$CLUSTER
verdict=0
.venv/bin/pytest tests/api_server tests/e2e -m "$wanted" "$@" || verdict=$?
if [ "$verdict" != 0 ]; then
  kubectl get pods,events --all-namespaces >&2 || true
  cluster_state "${SYSTEM_NAMESPACES[@]}"
  printf '\nFAIL: pytest ended with %d after %d s\n' "$verdict" "$SECONDS"
  exit "$verdict"
fi
printf '\nPASS after %d s\n' "$SECONDS"
