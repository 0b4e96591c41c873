# kernel FOLDER LOWER PACKAGE...: makes FOLDER/root, a layer over LOWER with the packages, in which no unit is masked.
mount_root root
mount -t proc proc "$root/proc"
# The kernel's package makes an initial RAM disk, which needs devices.
mount --bind /dev "$root/dev"
refuse_services
install "$@"
permit_services
rm -r "$root/etc/resolv.conf" "$root/var/cache/apt" "$root/var/lib/apt/lists"
find "$root/etc/systemd/system" -maxdepth 1 -lname /dev/null -delete
unmount_root
