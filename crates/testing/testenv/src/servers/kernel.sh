# kernel FOLDER LOWER PACKAGE...: makes FOLDER/root, a layer over LOWER with the packages, in which no unit is masked.
set -euo pipefail
folder=$1 lower=$2
shift 2
mkdir -p "$folder/root" "$folder/work" "$folder/merged"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/root,workdir=$folder/work" "$folder/merged"
mount -t proc proc "$folder/merged/proc"
# The kernel's package makes an initial RAM disk, which needs devices.
mount --bind /dev "$folder/merged/dev"
cp -L /etc/resolv.conf "$folder/merged/etc/resolv.conf"
mkdir -p "$folder/merged/var/cache/apt/archives/partial" "$folder/merged/var/lib/apt/lists/partial"
# Nothing is started or stopped in here.
printf '#!/bin/sh\nexit 101\n' >"$folder/merged/usr/sbin/policy-rc.d"
chmod 755 "$folder/merged/usr/sbin/policy-rc.d"
inside() { chroot "$folder/merged" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin apt-get -q -o APT::Sandbox::User=root "$@"; }
inside update
inside install --yes --no-install-recommends "$@"
rm "$folder/merged/usr/sbin/policy-rc.d" "$folder/merged/etc/resolv.conf"
rm -r "$folder/merged/var/cache/apt" "$folder/merged/var/lib/apt/lists"
find "$folder/merged/etc/systemd/system" -maxdepth 1 -lname /dev/null -delete
umount "$folder/merged/proc" "$folder/merged/dev" "$folder/merged"
rm -r "$folder/work" "$folder/merged"
