report Running 'checking the host'
preflight
end Done "Kubernetes $to can be installed"
