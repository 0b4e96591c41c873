# Starts a server, from outside of it. Environment: CGROUPS (folders), INIT (the script for inside).
set -eu
for folder in $CGROUPS; do echo $$ >"$folder/cgroup.procs"; done
# The control groups are joined before the namespace is made, so the server sees its own one as the root.
exec unshare --net --mount --pid --uts --ipc --cgroup --fork --kill-child --propagation private bash "$INIT"
