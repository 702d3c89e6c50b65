{{- define "agentqueue.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "agentqueue.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "agentqueue.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "agentqueue.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "agentqueue.operator" -}}
{{- include "agentqueue.fullname" . -}}-operator
{{- end }}

{{- define "agentqueue.selector" -}}
app.kubernetes.io/name: {{ include "agentqueue.name" . }}-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agentqueue.labels" -}}
{{ include "agentqueue.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: agentqueue
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "agentqueue.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "agentqueue.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "agentqueue.registry" -}}
{{- with .Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- end }}

{{- define "agentqueue.image" -}}
{{- $tag := printf ":%s" (default .Chart.AppVersion .Values.image.tag) -}}
{{- with .Values.image.digest }}{{ $tag = printf "@%s" . }}{{ end -}}
{{- include "agentqueue.registry" . }}{{ .Values.image.repository }}{{ $tag -}}
{{- end }}

{{- define "agentqueue.workerImage" -}}
{{- default (printf "%sagentqueue-worker:%s" (include "agentqueue.registry" .) .Chart.AppVersion) .Values.defaults.workerImage -}}
{{- end }}

{{- define "agentqueue.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "agentqueue.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
