{{- define "inferwatch.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "inferwatch.selector" -}}
app.kubernetes.io/name: inferwatch
app.kubernetes.io/instance: {{ include "inferwatch.name" . }}
{{- end }}

{{- define "inferwatch.labels" -}}
{{ include "inferwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "inferwatch.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Drain, 20 s for the books (docs/topics/operations.md), then the engine's own end. */}}
{{- define "inferwatch.graceSeconds" -}}
{{- add (int .Values.drain.delaySeconds) (int .Values.drain.timeoutSeconds) 20 (int .Values.engine.shutdownSeconds) -}}
{{- end }}

{{/* The sidecar itself: an entry of initContainers. */}}
{{- define "inferwatch.sidecar" -}}
name: inferwatch
image: {{ include "inferwatch.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
restartPolicy: Always # a native sidecar: starts before the engine, ends after it
args: [serve]
env:
  - {name: INFERWATCH_CONFIG, value: /etc/inferwatch/config.yml}
  - {name: INFERWATCH__UPSTREAM__URL, value: "http://127.0.0.1:{{ .Values.engine.port }}"}
  - {name: INFERWATCH__ADMIN, value: "0.0.0.0:9480"} # the kubelet and Prometheus come from outside
  - {name: INFERWATCH__DRAIN__DELAY_S, value: {{ .Values.drain.delaySeconds | quote }}}
  - {name: INFERWATCH__DRAIN__TIMEOUT_S, value: {{ .Values.drain.timeoutSeconds | quote }}}
{{- if eq .Values.gpu.access "runtime" }}
  - {name: NVIDIA_VISIBLE_DEVICES, value: {{ .Values.gpu.visibleDevices | quote }}}
  - {name: NVIDIA_DRIVER_CAPABILITIES, value: utility} # NVML; no CUDA
{{- else }}
  - {name: INFERWATCH__GPU__SOURCE, value: none}
  - {name: NVIDIA_VISIBLE_DEVICES, value: void}
{{- end }}
ports:
  - {name: data, containerPort: 8080}
  - {name: admin, containerPort: 9480}
# /healthz is the data path alone. The engine's container waits for the startup probe, so it must not ask for the engine.
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 3
# The pod takes requests when the engine accepts connections, and none while it drains.
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
# A native sidecar gets its SIGTERM only when the engine is gone. So it begins to drain here, at once, while the engine's
# own hook keeps that alive until this is done.
lifecycle:
  preStop:
    exec: {command: [sh, -c, kill -TERM 1]}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: inferwatch-state, mountPath: /var/lib/inferwatch}
  - {name: inferwatch-config, mountPath: /etc/inferwatch, readOnly: true}
  - {name: inferwatch-tmp, mountPath: /tmp}
{{- if .Values.secretName }}
  - {name: inferwatch-secrets, mountPath: /run/inferwatch, readOnly: true}
{{- end }}
{{- end }}
