{{/*
The objects are those of deploy/o2ims-operator, deploy/focom-operator, deploy/monitoring and crds/, which files/ links to: nothing is written
twice.
These templates take a dictionary with `root` and `operator` (o2ims or focom).
*/}}

{{/* The objects of a file as they stand there. */}}
{{- define "o2ims.file" -}}
{{- $path := printf "files/%s-operator/%s.yaml" .operator .file -}}
{{- .root.Files.Get $path | required (printf "%s is missing in the chart: package it from a checkout with symbolic links" $path) -}}
{{- end }}

{{/* The objects of a file, each with the annotation that keeps it when the release is uninstalled. */}}
{{- define "o2ims.kept" -}}
{{- $object := fromYaml .content -}}
{{- $metadata := $object.metadata -}}
{{- $_ := set $metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") (default dict $metadata.annotations)) -}}
---
{{ toYaml $object }}
{{- end }}

{{/* The operator's Deployment, with the values in it. */}}
{{- define "o2ims.deployment" -}}
{{- $values := index .root.Values .operator -}}
{{- $image := .root.Values.image -}}
{{- $object := include "o2ims.file" (merge (dict "file" "deployment") .) | fromYaml -}}
{{- $pod := $object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- $_ := set $object.spec "replicas" (int $values.replicas) -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- $_ := set $container "image" (printf "%s/%s-operator:%s" $image.registry .operator $tag) -}}
{{- $_ := set $container "imagePullPolicy" $image.pullPolicy -}}
{{- /* `--reuse-values` of a release from before these values has none: what the file has stays. */ -}}
{{- with .root.Values.podSecurityContext -}}
{{- $_ := set $pod "securityContext" . -}}
{{- end -}}
{{- with .root.Values.containerSecurityContext -}}
{{- $_ := set $container "securityContext" . -}}
{{- end -}}
{{- $_ := set $container "resources" (mergeOverwrite $container.resources $values.resources) -}}
{{- /* In parentheses: `--reuse-values` of a release from before this value. */ -}}
{{- with (.root.Values.traces).endpoint -}}
{{- $_ := set $container "env" (append $container.env (dict "name" "OTEL_EXPORTER_OTLP_ENDPOINT" "value" .)) -}}
{{- end -}}
{{- range $name, $value := $values.env -}}
{{- $_ := set $container "env" (append $container.env (dict "name" $name "value" $value)) -}}
{{- end -}}
{{- with $values.nodeSelector -}}
{{- $_ := set $pod "nodeSelector" . -}}
{{- end -}}
{{- with $values.tolerations -}}
{{- $_ := set $pod "tolerations" (concat $pod.tolerations .) -}}
{{- end -}}
{{- with $image.pullSecrets -}}
{{- $secrets := list -}}
{{- range . }}{{ $secrets = append $secrets (dict "name" .) }}{{ end -}}
{{- $_ := set $pod "imagePullSecrets" $secrets -}}
{{- end -}}
{{ toYaml $object }}
{{- end }}

{{/* All objects of an operator but its CRDs. */}}
{{- define "o2ims.operator" -}}
{{- if .root.Values.namespaces.create }}
{{ include "o2ims.kept" (dict "content" (include "o2ims.file" (merge (dict "file" "namespace") .))) }}
{{- end }}
{{- range $file := .files }}
---
{{ include "o2ims.file" (merge (dict "file" $file) $) }}
{{- end }}
{{- if .root.Values.networkPolicies.install }}
---
{{ include "o2ims.file" (merge (dict "file" "network") .) }}
{{- with .root.Values.networkPolicies.apiServerPorts }}
---
# Policies add up.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $.operator }}-operator-api-server
  namespace: {{ $.operator }}-system
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/name: {{ $.operator }}-operator}
  policyTypes: [Egress]
  egress:
  - ports:
    {{- range . }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}
{{- with (.root.Values.traces).endpoint }}
{{- $url := urlParse . }}
---
# The collector's port, wherever the collector is.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $.operator }}-operator-traces
  namespace: {{ $.operator }}-system
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/name: {{ $.operator }}-operator}
  policyTypes: [Egress]
  egress:
  - ports:
    - {protocol: TCP, port: {{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary 443 80 (eq $url.scheme "https")) }}}
{{- end }}
{{- end }}
---
{{ include "o2ims.deployment" . }}
{{- end }}
