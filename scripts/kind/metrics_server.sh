#!/usr/bin/env bash
# Sourced. metrics_server NAME: the cluster of KUBECONFIG measures the CPU time of pods afterwards, for autoscaling. Built from
# its Go module everywhere: no image of it comes with KIND (cold about two minutes).

metrics_server() {
  node_program_image "$1" metrics-server "$METRICS_SERVER_VERSION" sigs.k8s.io/metrics-server/cmd/metrics-server sigs.k8s.io/metrics-server
  sed "s#VERSION#$METRICS_SERVER_VERSION#" "$KIND_FOLDER/metrics_server.yaml" | logged metrics-server kubectl apply --server-side --force-conflicts -f -
  logged metrics-server-rollout kubectl -n kube-system rollout status deployment/metrics-server --timeout=120s
  logged metrics-api kubectl apply --server-side --force-conflicts -f "$KIND_FOLDER/metrics_api.yaml"
  logged metrics-api-wait kubectl wait --for=condition=Available --timeout=120s apiservice/v1beta1.metrics.k8s.io
}
