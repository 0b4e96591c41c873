
# After `kubeadm reset`, which the agent runs first if the installation had ended well; both run again until both end well.
# The fork's agent also runs this where it had not: a host that was refused is not ours to clean.
if is_ours "$wrapper"; then clean_host; fi
report ''
remove_own_files
exit 0
