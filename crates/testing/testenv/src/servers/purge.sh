# purge FOLDER LOWER PACKAGE...: makes FOLDER/root, a layer over LOWER in which the packages are gone.
set -euo pipefail
folder=$1 lower=$2
shift 2
mkdir -p "$folder/root" "$folder/work" "$folder/merged"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/root,workdir=$folder/work" "$folder/merged"
mount -t proc proc "$folder/merged/proc"
# Nothing is started or stopped in here.
printf '#!/bin/sh\nexit 101\n' >"$folder/merged/usr/sbin/policy-rc.d"
chmod 755 "$folder/merged/usr/sbin/policy-rc.d"
chroot "$folder/merged" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg --purge "$@"
rm "$folder/merged/usr/sbin/policy-rc.d"
umount "$folder/merged/proc" "$folder/merged"
rm -r "$folder/work" "$folder/merged"
