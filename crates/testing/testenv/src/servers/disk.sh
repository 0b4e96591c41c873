# disk FOLDER LOWER NAME ADDRESS GATEWAY SIZE: makes FOLDER/disk, an ext4 file system of SIZE with what LOWER and
# FOLDER/upper have. ADDRESS is a CIDR.
set -euo pipefail
folder=$1 lower=$2 name=$3 address=$4 gateway=$5 size=$6
mkdir -p "$folder/work" "$folder/merged"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged"
etc=$folder/merged/etc
echo "$name" >"$etc/hostname"
printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" >"$etc/hosts"
echo "nameserver $gateway" >"$etc/resolv.conf"
printf '[Match]\nName=en*\n[Network]\nAddress=%s\nGateway=%s\n' "$address" "$gateway" >"$etc/systemd/network/lan.network"
chroot "$folder/merged" systemctl --quiet enable systemd-networkd
echo '/dev/vda / ext4 defaults 0 1' >"$etc/fstab"
: >"$etc/machine-id"
mkfs.ext4 -q -d "$folder/merged" "$folder/disk" "$size"
umount "$folder/merged"
rm -r "$folder/work" "$folder/merged" "$folder/upper"
