
# A snapshot at the word of the owner of the request.
report Running 'taking a snapshot'
has_etcd || fail 'etcd is not on this host: it has no manifest there'
[ -n "$snapshot" ] || save_snapshot "asked-$(date --utc +%Y%m%dT%H%M%SZ)" '' 'asked-*'
end Done "$(stat --format=%s "$snapshots/$snapshot/etcd.db") $(sha256sum <"$snapshots/$snapshot/etcd.db" | cut -d ' ' -f 1)"
