#!/usr/bin/env bash
# Sourced. base_image: sets BASE_IMAGE, what the product's images are built on: Debian's, or one made here from Debian's packages.

base_image() {
  BASE_IMAGE=$BASE_IMAGE_PULLED
  export BASE_IMAGE
  if docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; then
    note "using $BASE_IMAGE, which Docker has"
    return
  fi
  # The host's own certificate authorities go in, so that pip in `docker build` trusts what the host trusts.
  local inputs
  inputs=$(key "$BASE_SUITE" "$KIND_FOLDER/base_image.sh" /usr/local/share/ca-certificates/*.crt)
  if image_has_key "$BASE_IMAGE_MADE" "$inputs"; then
    BASE_IMAGE=$BASE_IMAGE_MADE
    note "using $BASE_IMAGE, made here earlier"
    return
  fi
  pull "$BASE_IMAGE" && return
  BASE_IMAGE=$BASE_IMAGE_MADE
  base_image_build "$inputs"
}

base_image_build() {
  local root=$CACHE/rootfs/$BASE_SUITE-base.new
  { [ "$(id -u)" = 0 ] && debian_packages debootstrap; } ||
    fail "$BASE_IMAGE_PULLED cannot be pulled, and only root on Debian can make one (debootstrap); remedies: docker pull $BASE_IMAGE_PULLED, or run this as root"
  note "making $BASE_IMAGE_MADE from Debian packages (about 40 s)"
  rm -rf "$root"
  mkdir -p "$CACHE/rootfs"
  logged base-image debootstrap --variant=minbase --include=ca-certificates "$BASE_SUITE" "$root"
  # Security updates too, from the mirror that debootstrap chose.
  sed -n "s#^deb \(.*\)/debian/\{0,1\} $BASE_SUITE main.*#deb \1/debian-security $BASE_SUITE-security main#p" "$root/etc/apt/sources.list" \
    >"$root/etc/apt/sources.list.d/security.list"
  if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
    logged base-authorities chroot "$root" update-ca-certificates
  fi
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . | docker import --change "LABEL dev.protectedservice.key=$1" --change 'CMD ["bash"]' - "$BASE_IMAGE_MADE" >/dev/null
  rm -rf "$root"
}
