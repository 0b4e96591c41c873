# Sets up a server, as its process 1, and then executes systemd. Environment: NAME, ADDRESS (CIDR), GATEWAY,
# FOLDER (the server's own), LAYERS (of the root file system, the topmost first), HIERARCHIES (of control groups).
set -eu
root=$FOLDER/root
hostname "$NAME"

# The network card is connected from outside.
for _ in $(seq 500); do
    [ -e /proc/sys/net/ipv4/conf/eth0 ] && break
    sleep 0.02
done
ip link set lo up
ip address add "$ADDRESS" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
echo 1 >/proc/sys/net/ipv4/ip_forward

mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$root"
# Plain folders: the kernel refuses an overlay on an overlay, and containerd's snapshots are overlays.
for part in lib/containerd lib/kubelet lib/etcd log; do
    mkdir -p "$root/var/$part"
    mount --bind "$FOLDER/data/$part" "$root/var/$part"
done

mount -t proc proc "$root/proc"
# Read-only, so that systemd does not manage devices.
mount -t sysfs -o ro sysfs "$root/sys"
if [ "$HIERARCHIES" = unified ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    for hierarchy in $HIERARCHIES; do
        mkdir "$root/sys/fs/cgroup/$hierarchy"
        option=$hierarchy
        [ "$hierarchy" != systemd ] || option=none,name=systemd
        mount -t cgroup -o "$option" cgroup "$root/sys/fs/cgroup/$hierarchy"
        # Several controllers may share a hierarchy, with a name such as cpu,cpuacct.
        for controller in ${hierarchy//,/ }; do
            [ -e "$root/sys/fs/cgroup/$controller" ] || ln -s "$hierarchy" "$root/sys/fs/cgroup/$controller"
        done
    done
    # Otherwise systemd would mount the other hierarchies, which belong to the machine.
    mount -o remount,ro "$root/sys/fs/cgroup"
fi

for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp"
for device in null zero full random urandom tty kmsg fuse; do
    [ -e "/dev/$device" ] || continue
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"; done

# The kubelet would set these for the whole machine. It does not, because it finds the values that it wants.
mkdir "$root/run/sysctl"
has() {
    echo "$2" >"$root/run/sysctl/${1##*/}"
    mount --bind "$root/run/sysctl/${1##*/}" "$root/proc/sys/$1"
}
has vm/overcommit_memory 1
has vm/panic_on_oom 0
has kernel/panic 10
has kernel/panic_on_oops 1
has kernel/keys/root_maxkeys 1000000
has kernel/keys/root_maxbytes 25000000
# The kernel's usual limits, which a server may raise for itself only.
has fs/inotify/max_user_instances 128
has fs/inotify/max_user_watches 8192
# Hides the machine's swap from the kubelet.
head -n 1 /proc/swaps >"$root/run/sysctl/swaps"
mount --bind "$root/run/sysctl/swaps" "$root/proc/swaps"

echo "$NAME" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n%s %s\n' "${ADDRESS%/*}" "$NAME" >"$root/etc/hosts"
echo "nameserver $GATEWAY" >"$root/etc/resolv.conf"
echo "$NAME" | md5sum | cut -c1-32 >"$root/etc/machine-id"

cd "$root"
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old || true
# The kubelet needs mounts to be shared.
mount --make-rshared /
cd /
# In a container systemd takes its arguments for the kernel's. From 256 on it refuses control groups of version 1 without this one.
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=testhost HOME=/root TERM=linux \
    /lib/systemd/systemd SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
