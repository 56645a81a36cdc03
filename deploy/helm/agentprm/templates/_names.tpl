{{- define "agentprm.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "agentprm.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agentprm.labels" -}}
{{ include "agentprm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "agentprm.metadata" -}}
name: {{ include "agentprm.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "agentprm.labels" . | nindent 2 }}
{{- end }}

{{- define "agentprm.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-cpu" .Chart.AppVersion) }}
{{- end }}

{{- define "agentprm.hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "agentprm.scheme" -}}
{{ if .Values.tls.secret }}https{{ else }}http{{ end }}
{{- end }}
