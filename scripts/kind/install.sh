#!/usr/bin/env bash
# Sourced. install_product OVERLAY: schemas, operator and authorization server in the cluster of KUBECONFIG; waits until they run.

SYSTEM_NAMESPACES=(protectedservice-system authorization-server)

install_product() {
  note 'schemas'
  logged crds kubectl apply --server-side --force-conflicts -k crds
  kubectl kustomize crds | logged crds-wait kubectl wait --for=condition=Established --timeout=60s -f -
  registration_secret
  if kubectl kustomize "k8s/overlays/$1" | grep 'name: authorization-server-database$' >/dev/null; then database_secret; fi
  note "k8s/overlays/$1"
  logged overlay kubectl apply --server-side --force-conflicts -k "k8s/overlays/$1"
  local namespace workload
  for namespace in "${SYSTEM_NAMESPACES[@]}"; do
    for workload in $(kubectl -n "$namespace" get deployments,statefulsets -o name); do
      note "waiting for $namespace ${workload#*/}"
      if ! kubectl -n "$namespace" rollout status "$workload" --timeout=180s >"$CACHE/logs/rollout.log" 2>&1; then
        cluster_state "${SYSTEM_NAMESPACES[@]}"
        fail "$workload in $namespace is not available after 180 s; the state of the cluster is above"
      fi
    done
  done
}

# The initial access token: one random value in both namespaces, made once and never shown.
# `kubectl create` and not `apply`, which would keep a copy in an annotation; by standard input, as arguments are public.
registration_secret() {
  local namespace token='' have=()
  for namespace in "${SYSTEM_NAMESPACES[@]}"; do
    kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
    if kubectl -n "$namespace" get secret authorization-server-registration >/dev/null 2>&1; then have+=("$namespace"); fi
  done
  [ ${#have[@]} -lt ${#SYSTEM_NAMESPACES[@]} ] || return 0
  if [ ${#have[@]} -gt 0 ]; then
    token=$(kubectl -n "${have[0]}" get secret authorization-server-registration -o jsonpath='{.data.token}' | base64 -d)
  else
    token=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")')
  fi
  for namespace in "${SYSTEM_NAMESPACES[@]}"; do
    kubectl -n "$namespace" get secret authorization-server-registration >/dev/null 2>&1 ||
      printf '%s' "$token" | kubectl -n "$namespace" create secret generic authorization-server-registration --from-file=token=/dev/stdin >/dev/null
  done
}

# What the replicas of the authorization server share: the database's password, and a key. Made once and never shown, as above.
database_secret() {
  if kubectl -n authorization-server get secret authorization-server-database >/dev/null 2>&1; then return; fi
  python3 - <<'PY' | kubectl create -f - >/dev/null
import json
import secrets

metadata = {"name": "authorization-server-database", "namespace": "authorization-server"}
values = {key: secrets.token_urlsafe(48) for key in ("password", "secret-key")}
print(json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}))
PY
}

# cluster_state NAMESPACE...: what somebody needs to see when something did not happen. No Secrets.
cluster_state() {
  local namespace pod
  for namespace in "$@"; do
    printf '\n--- namespace %s\n' "$namespace"
    kubectl -n "$namespace" get deployments,statefulsets,jobs,pods -o wide || true
    kubectl -n "$namespace" get events --sort-by=.lastTimestamp 2>/dev/null | tail -n 20 || true
    for pod in $(kubectl -n "$namespace" get pods -o name 2>/dev/null); do
      printf -- '--- log of %s %s\n' "$namespace" "$pod"
      kubectl -n "$namespace" logs "$pod" --all-containers --tail=30 2>&1 || true
    done
  done >&2
  {
    printf '\n--- ProtectedServices and AuthorizationServers\n'
    kubectl get protectedservices,serviceclients,authorizationservers --all-namespaces || true
  } >&2
}
