#!/usr/bin/env bash
# Every version that the cluster is made of. A changed version makes new images, tools and clusters, as each is kept by version.
# Kubernetes 1.34 is the last that takes cgroup v1 without being told to.

export KIND_VERSION=v0.33.0
export KIND_OLDEST=0.30 # the first that knows Kubernetes 1.34

# Pulled, where image registries are reached: KIND's image for this KIND release, by digest (its release notes list them).
export NODE_IMAGE_PULLED=kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d
export BASE_IMAGE_PULLED=debian:trixie-slim

# Made here, where they are not.
export KUBERNETES_VERSION=v1.34.4
export ETCD_VERSION=v3.6.4
export COREDNS_VERSION=v1.12.1
export LOCAL_PATH_VERSION=v0.0.30
export NETWORK_POLICIES_VERSION=v0.8.0 # kube-network-policies, for the end-to-end tests
export METRICS_SERVER_VERSION=v0.8.0 # likewise, with --all
export GO_OLDEST=1.24
export NODE_SUITE=bookworm # the node's systemd must still know cgroup v1: Debian 12's does, 13's does not
export BASE_SUITE=trixie
export NODE_IMAGE_MADE=protectedservice/kind-node:$KUBERNETES_VERSION
export BASE_IMAGE_MADE=protectedservice/debian:$BASE_SUITE-slim
