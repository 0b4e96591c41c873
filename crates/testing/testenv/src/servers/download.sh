# download FOLDER LOWER PACKAGE...: puts the packages, and what they need beside what LOWER has, into FOLDER/packages.
mount_root upper
mount -t proc proc "$root/proc"
install --download-only "$@"
mkdir "$folder/packages"
mv "$root/var/cache/apt/archives/"*.deb "$folder/packages"
unmount_root
rm -r "$folder/upper"
