# download FOLDER LOWER PACKAGE...: puts the packages, and what they need beside what LOWER has, into FOLDER/packages.
set -euo pipefail
folder=$1 lower=$2
shift 2
mkdir -p "$folder/packages" "$folder/upper" "$folder/work" "$folder/merged"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged"
mount -t proc proc "$folder/merged/proc"
cp -L /etc/resolv.conf "$folder/merged/etc/resolv.conf"
mkdir -p "$folder/merged/var/cache/apt/archives/partial" "$folder/merged/var/lib/apt/lists/partial"
inside() { chroot "$folder/merged" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin apt-get -q -o APT::Sandbox::User=root "$@"; }
inside update
inside install --yes --no-install-recommends --download-only "$@"
mv "$folder/merged/var/cache/apt/archives/"*.deb "$folder/packages"
umount "$folder/merged/proc" "$folder/merged"
rm -r "$folder/upper" "$folder/work" "$folder/merged"
