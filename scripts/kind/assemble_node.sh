#!/usr/bin/env bash
# Runs inside the container that becomes the node image: KIND's own files, our programs, the images preloaded, a static CNI for one node.
# /mnt/work: what node_image.sh prepared. /mnt/files: images/base/files of KIND's module.
set -euo pipefail
cp -r /mnt/files/etc/. /etc/
cp -r /mnt/files/kind /
cp /mnt/files/usr/local/bin/* /usr/local/bin/
chmod -R u+w /etc /kind
chmod 755 /usr/local/bin/* /kind /kind/bin /kind/bin/*
install -m 755 /mnt/work/programs/* /usr/bin/
cp /mnt/work/version /kind/version
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/kubernetes/manifests /kind/manifests
cp /mnt/work/default-storage.yaml /kind/manifests/
cp /usr/lib/cni/* /opt/cni/bin/

# Without CAP_SYS_RESOURCE nothing may raise a limit or an OOM score.
pause=$(sed -n 's#.* \([^ ]*/pause:[^ ]*\)$#\1#p' /mnt/work/names)
sed -i 's#/usr/local/bin/containerd#/usr/bin/containerd#; /^LimitN/d; /^LimitC/d; /^OOMScore/d' /etc/systemd/system/containerd.service
rm -f /etc/systemd/system/containerd-fuse-overlayfs.service
sed -i "s#sandbox_image = .*#sandbox_image = \"$pause\"#; s/restrict_oom_score_adj = false/restrict_oom_score_adj = true/" /etc/containerd/config.toml
ctr oci spec | jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' \
  >/etc/containerd/cri-base.json

cat >/etc/cni/net.d/10-pods.conflist <<'J'
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
J

# A container boots: no devices, no console, no file systems to mount.
find /lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \
  /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/*
echo 'ReadKMsg=no' >>/etc/systemd/journald.conf
systemctl enable kubelet.service containerd.service undo-mount-hacks.service
systemctl mask systemd-binfmt.service

containerd >/tmp/containerd.log 2>&1 &
for _ in $(seq 60); do
  if ctr version >/dev/null 2>&1; then break; fi
  sleep 0.25
done
ctr --namespace=k8s.io images import --all-platforms --no-unpack --digests /mnt/work/images.tar
while read -r staged official; do
  ctr --namespace=k8s.io images tag "$staged" "$official"
  ctr --namespace=k8s.io images rm "$staged"
done </mnt/work/names
kill %1
wait %1 || true
rm -rf /run/containerd /tmp/containerd.log
