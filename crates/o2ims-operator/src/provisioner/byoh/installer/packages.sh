
# find_program PROGRAM: an installed one that is not ours.
find_program() {
    local candidate
    for candidate in $(type -aP "$1"); do
        if ! is_ours "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# The version as packages have it.
release='@VERSION@' release=${release#v}
# name_repository: tells apt, or else dnf or yum, where the packages are.
name_repository() {
    local signed='' output why
    if command -v apt-get >/dev/null; then
        [ -n '@DEB@' ] || fail 'the ClusterTemplate has no install.installer.packages.deb'
        if [ -n '@KEY@' ]; then signed='[signed-by=@KEY@] '; fi
        echo "deb ${signed}@DEB@ /" >/etc/apt/sources.list.d/o2ims-kubernetes.list
        # Without this mode apt-get ends well when it does not reach the repository, and goes on with an old list.
        output=$(LC_ALL=C apt-get update -q -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any \
            -o Dir::Etc::sourcelist=sources.list.d/o2ims-kubernetes.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 2>&1) || {
            why=$(echo "$output" | grep '^[EW]: .*:/' | head -n 1 | cut -c4-)
            case $why in *NO_PUBKEY* | *EXPKEYSIG*) why="$why. Put the repository's key of today into the template's keyFile" ;; esac
            fail "apt-get update: ${why:-$(echo "$output" | tail -n 2)}"
        }
        return
    fi
    dnf=$(command -v dnf || command -v yum) || fail 'neither apt-get, dnf nor yum is on the host'
    [ -n '@RPM@' ] || fail 'the ClusterTemplate has no install.installer.packages.rpm'
    {
        printf '[o2ims-kubernetes]\nname=Kubernetes\nbaseurl=%s\nenabled=0\n' '@RPM@'
        if [ -n '@KEY@' ]; then printf 'gpgcheck=1\ngpgkey=file://%s\n' '@KEY@'; fi
    } >/etc/yum.repos.d/o2ims-kubernetes.repo
}
# apt_install ARGUMENT...: what it prints is its output. A file of the site's that is a package's setting too stays; dpkg would ask about it.
apt_install() {
    LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get install -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold --allow-downgrades --allow-change-held-packages --no-install-recommends "$@" 2>&1
}
