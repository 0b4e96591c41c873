# purge FOLDER LOWER PACKAGE...: makes FOLDER/root, a layer over LOWER in which the packages are gone.
mount_root root
mount -t proc proc "$root/proc"
refuse_services
inside dpkg --purge "$@"
permit_services
unmount_root
