# disk FOLDER LOWER NAME ADDRESS GATEWAY SIZE: makes FOLDER/disk, an ext4 file system of SIZE with what LOWER and
# FOLDER/upper have. ADDRESS is a CIDR.
name=$1 address=$2 gateway=$3 size=$4
mount_root upper
etc=$root/etc
echo "$name" >"$etc/hostname"
printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" >"$etc/hosts"
echo "nameserver $gateway" >"$etc/resolv.conf"
printf '[Match]\nName=en*\n[Network]\nAddress=%s\nGateway=%s\n' "$address" "$gateway" >"$etc/systemd/network/lan.network"
inside systemctl --quiet enable systemd-networkd
echo '/dev/vda / ext4 defaults 0 1' >"$etc/fstab"
: >"$etc/machine-id"
mkfs.ext4 -q -d "$root" "$folder/disk" "$size"
unmount_root
rm -r "$folder/upper"
