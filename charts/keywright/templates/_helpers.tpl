{{- define "keywright.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: with -controller-admin behind it still a Service's name (63). */}}
{{- define "keywright.fullname" -}}
{{- $name := include "keywright.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels of everything that belongs to no single process. */}}
{{- define "keywright.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "keywright.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The helpers below take a list: the root, then "controller" or "webhook". */}}

{{- define "keywright.process.fullname" -}}
{{ include "keywright.fullname" (index . 0) }}-{{ index . 1 }}
{{- end }}

{{- define "keywright.process.selector" -}}
app.kubernetes.io/name: {{ include "keywright.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "keywright.process.labels" -}}
{{ include "keywright.labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "keywright.process.serviceAccount" -}}
{{- $values := index (index . 0).Values (index . 1) }}
{{- if $values.serviceAccount.create }}
{{- default (include "keywright.process.fullname" .) $values.serviceAccount.name }}
{{- else }}
{{- required (printf "%s.serviceAccount.name: name the service account to use, since %s.serviceAccount.create is false" (index . 1) (index . 1)) $values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What a pod of either process is, beside its container. */}}
{{- define "keywright.process.pod" -}}
{{- $root := index . 0 }}
{{- $values := index $root.Values (index . 1) -}}
serviceAccountName: {{ include "keywright.process.serviceAccount" . }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "keywright.process.selector" . | nindent 6 }}
{{- end }}

{{/* What a container of either process is, beside its arguments, ports and mounts. */}}
{{- define "keywright.process.container" -}}
{{- $root := index . 0 }}
{{- $values := index $root.Values (index . 1) -}}
name: {{ index . 1 }}
{{- with $root.Values.image }}
{{- if .digest }}
image: {{ printf "%s@%s" .repository .digest | quote }}
{{- else }}
image: {{ printf "%s:%s" .repository (default $root.Chart.AppVersion .tag) | quote }}
{{- end }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}
env:
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
livenessProbe:
  httpGet:
    path: /healthz
    port: {{ index . 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ index . 2 }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
    - ALL
{{- end }}

{{/* A RoleBinding or ClusterRoleBinding's subject and nothing else. */}}
{{- define "keywright.process.subjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "keywright.process.serviceAccount" . }}
  namespace: {{ (index . 0).Release.Namespace }}
{{- end }}
