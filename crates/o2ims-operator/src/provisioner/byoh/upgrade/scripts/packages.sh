
# What was fetched of the repository: the packages with what they need, and below `root` their programs.
fetched=$packages/$to
# fetch_packages: downloads the packages of the version that is asked for, so that the upgrade needs no repository, and installs nothing. kubectl is the
# site's where it is no package.
fetch_packages() {
    local programs=(kubelet kubeadm) wanted=() program file output verb=install
    [ ! -e "$fetched/complete" ] || return 0
    if is_installed kubectl; then programs+=(kubectl); fi
    name_repository
    rm -rf "$packages" && mkdir -p "$fetched/partial" "$fetched/root" || fail "$packages cannot be written"
    if command -v apt-get >/dev/null; then
        wanted=("${programs[@]/%/=$release-*}")
        # Of a repository on the host itself apt-get install makes no copies.
        output=$(apt_install --reinstall --download-only -o "Dir::Cache::archives=$fetched" "${wanted[@]}" &&
            cd "$fetched" && LC_ALL=C apt-get download -q "${wanted[@]}" 2>&1) ||
            fail "the packages of Kubernetes $to cannot be fetched from @DEB@: $(tail -n 2 <<<"$output")"
        for file in "$fetched"/kube{let,adm,ctl}_*.deb; do
            [ -e "$file" ] || continue
            dpkg-deb --extract "$file" "$fetched/root" || fail "package ${file##*/} cannot be unpacked: see the log of the job"
        done
    else
        wanted=("${programs[@]/%/-$release}")
        if rpm --quiet --query "${wanted[@]}"; then verb=reinstall; fi
        output=$("$dnf" "$verb" -q -y --enablerepo=o2ims-kubernetes --setopt=o2ims-kubernetes.excludepkgs= --downloadonly \
            --downloaddir="$fetched" "${wanted[@]}" 2>&1) ||
            fail "the packages of Kubernetes $to cannot be fetched from @RPM@: $(tail -n 2 <<<"$output")"
        for file in "$fetched"/kube{let,adm,ctl}-*.rpm; do
            [ -e "$file" ] || continue
            rpm2cpio "$file" | (cd "$fetched/root" && cpio --extract --make-directories --quiet) ||
                fail "package ${file##*/} cannot be unpacked: see the log of the job"
        done
    fi
    sync && : >"$fetched/complete" && sync
}
# is_installed PACKAGE
is_installed() {
    if command -v apt-get >/dev/null; then
        [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
    else
        rpm --quiet --query "$1"
    fi
}
# install_fetched PROGRAM...: installs the packages of these programs that were fetched, and what they need, unless the programs are there already. One that
# was cut off goes on: its programs may be there, while their packages are not configured and not held yet.
install_fetched() {
    local program chosen=() output verb=install
    [ -e "$fetched/complete" ] || return 0
    for program in "$@"; do
        case $(find_new "$program") in "$fetched"/*) chosen+=("$fetched/$program"[_-]*) ;; esac
    done
    if command -v apt-get >/dev/null && [ ! -e "$own/held" ]; then
        apt-mark showhold >"$own/held.new" && sync && mv "$own/held.new" "$own/held"
    fi
    if [ ${#chosen[@]} -eq 0 ]; then
        if command -v apt-get >/dev/null; then
            output=$(configure_pending 2>&1) || fail "dpkg --configure --pending: $(tail -n 2 <<<"$output")"
            hold
        fi
        return
    fi
    mapfile -t -O ${#chosen[@]} chosen < <(find "$fetched" -maxdepth 1 \( -name '*.deb' -o -name '*.rpm' \) | grep -vE '/kube(let|adm|ctl)[_-][^/]*$')
    if command -v apt-get >/dev/null; then
        if ! output=$(apt_install --reinstall "${chosen[@]}"); then
            configure_pending
            output=$(apt_install --reinstall "${chosen[@]}") || fail "apt-get install: $(tail -n 2 <<<"$output")"
        fi
        hold
        return
    fi
    dnf=$(command -v dnf || command -v yum)
    if rpm --quiet --query "$1-$release"; then verb=reinstall; fi
    output=$("$dnf" "$verb" -q -y --disablerepo='*' --setopt=excludepkgs= "${chosen[@]}" 2>&1) || fail "${dnf##*/} $verb: $(tail -n 2 <<<"$output")"
}
configure_pending() { dpkg --force-confdef --force-confold --configure --pending; }
# hold: apt-get takes the hold off what it installs.
hold() {
    # shellcheck disable=SC2046
    apt-mark hold kubelet kubeadm $(cat "$own/held") >/dev/null
}
