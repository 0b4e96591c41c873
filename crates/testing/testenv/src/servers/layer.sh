# The beginning of the scripts that change a root file system. Their arguments: FOLDER, LOWER (layers of the root file system,
# the topmost first), and the script's own.
set -euo pipefail
folder=$1 lower=$2
shift 2
root=$folder/merged

# mount_root UPPER: mounts LOWER at $root; what is changed there goes to FOLDER/UPPER.
mount_root() {
    mkdir -p "$folder/$1" "$folder/work" "$root"
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/$1,workdir=$folder/work" "$root"
}

unmount_root() {
    umount --recursive "$root"
    rm -r "$folder/work" "$root"
}

# inside PROGRAM ARGUMENT...: runs a program in $root.
inside() {
    chroot "$root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# Packages start and stop no services until permit_services.
refuse_services() {
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
}

permit_services() {
    rm "$root/usr/sbin/policy-rc.d"
}

# install OPTION... PACKAGE...: installs packages of the distribution.
install() {
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
    inside apt-get -q -o APT::Sandbox::User=root update
    inside apt-get -q -o APT::Sandbox::User=root install --yes --no-install-recommends "$@"
}
