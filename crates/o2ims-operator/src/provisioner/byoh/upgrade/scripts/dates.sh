# dates: start and end of the certificate that is read, in seconds since 1970.
dates() { openssl x509 -noout -startdate -enddate 2>/dev/null | sed 's/^[^=]*=//' | date --utc --file=- +%s; }
# embedded: the client certificate in the kubeconfig that is read.
embedded() { sed -n 's/^ *client-certificate-data: *//p' | base64 --decode; }
# is_due START END: whether less than 60 days are left and less than a third of the time, or nothing.
is_due() {
    local left=$(($2 - $(date +%s)))
    [ "$left" -le 0 ] || { [ "$left" -lt 5184000 ] && [ $((left * 3)) -lt $(($2 - $1)) ]; }
}
# control_plane: each certificate of the control plane on this host, with start and end; not those of authorities. kubeadm begins them when the
# authority began, so the time of the file counts. The kubelet renews its own.
control_plane() {
    local file end
    for file in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt \
        /etc/kubernetes/{admin,super-admin,controller-manager,scheduler}.conf; do
        [ -s "$file" ] || continue
        case $file in
        *ca.crt) continue ;;
        *.conf) end=$(embedded <"$file" | dates | tail -n 1) ;;
        *) end=$(dates <"$file" | tail -n 1) ;;
        esac
        [ -z "$end" ] || echo "$file $(stat --format=%Y "$file") $end"
    done
}
