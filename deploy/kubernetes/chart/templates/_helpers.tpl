{{/* Nothing is named longer than 63 characters, with what comes after. */}}
{{- define "batchfleet.name" -}}
{{- if contains "batchfleet" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-batchfleet" (.Release.Name | trunc 29 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "batchfleet.selector" -}}
app.kubernetes.io/name: batchfleet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* (root, component): what its pods are selected by. */}}
{{- define "batchfleet.componentSelector" -}}
{{ include "batchfleet.selector" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "batchfleet.labels" -}}
{{ include "batchfleet.componentSelector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end }}

{{/* (root, image) */}}
{{- define "batchfleet.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $root.Values.images.pullPolicy }}
{{- end }}

{{- define "batchfleet.podSecurity" -}}
# Nothing here speaks to the Kubernetes API.
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "batchfleet.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsUser: 10001
  runAsGroup: 10001
  capabilities: {drop: [ALL]}
# A mistake in the settings is one line of the log, and then in `kubectl describe pod`.
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- define "batchfleet.redisUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ include "batchfleet.name" . }}-redis:6379/0
{{- else -}}
{{ required "redis.url: name the existing Redis, or set redis.enabled" .Values.redis.url }}
{{- end }}
{{- end }}

{{- define "batchfleet.env" -}}
- {name: BATCHFLEET_REDIS_URL, value: {{ include "batchfleet.redisUrl" . | quote }}}
- name: BATCHFLEET_REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.secretName }}, key: redis-password{{ if not .Values.redis.enabled }}, optional: true{{ end }}}}
{{- end }}

{{/* Prometheus scrapes from outside of the pod. */}}
{{- define "batchfleet.metricsEnv" -}}
- {name: BATCHFLEET_METRICS_PORT, value: "9400"}
- {name: BATCHFLEET_METRICS_PORTS, value: "1"}
- {name: BATCHFLEET_METRICS_HOST, value: 0.0.0.0}
{{- end }}

{{- define "batchfleet.healthProbes" -}}
{{- $ask := "batchfleet, health, --config, /etc/batchfleet/fleet.yaml" -}}
# Engine booted, Redis reachable, leases renewed: not merely that a process exists. Python takes its time to start on a busy node.
startupProbe:
  exec: {command: [{{ $ask }}]}
  periodSeconds: 10
  timeoutSeconds: 20
  failureThreshold: {{ . }}
readinessProbe:
  exec: {command: [{{ $ask }}]}
  periodSeconds: 15
  timeoutSeconds: 20
  failureThreshold: 2
# A Redis that is away is no reason to boot engines anew.
livenessProbe:
  exec: {command: [{{ $ask }}, --redis-may-be-away]}
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 4
{{- end }}

{{/* (root, worker): its fleet.yaml as a mapping. */}}
{{- define "batchfleet.workerSettings" -}}
{{- $root := index . 0 }}{{ $worker := index . 1 }}
{{- $slice := dict }}
{{- if and (eq $worker.engine "vllm") (gt (int $worker.gpus) 1) }}
{{- $slice = dict "model" (dict "generator_settings" (dict "vllm_args" (dict "tensor_parallel_size" (int $worker.gpus)))) }}
{{- end }}
{{- $drain := dict "leases" (dict "drain_s" (int $worker.drainSeconds)) }}
{{- $all := mergeOverwrite $slice (deepCopy $root.Values.settings) (deepCopy ($worker.settings | default dict)) $drain }}
{{- if eq $worker.engine "vllm" }}
{{- $arguments := dig "model" "generator_settings" "vllm_args" dict $all }}
{{- $asked := 1 }}
{{- range $size := list "tensor_parallel_size" "pipeline_parallel_size" "data_parallel_size" }}
{{- $asked = mul $asked (int (dig $size 1 $arguments)) }}
{{- end }}
{{- if ne (int $asked) (int $worker.gpus) }}
{{- fail (printf "workers: %s has %d GPUs, but its vllm_args ask for %d (tensor x pipeline x data parallel size); set gpus to that" $worker.name (int $worker.gpus) (int $asked)) }}
{{- end }}
{{- end }}
{{- toYaml $all }}
{{- end }}
