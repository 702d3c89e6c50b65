{{- define "agentqueue.rules.own" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}
{{- define "agentqueue.rules" -}}
- apiGroups: [agentqueue.dev]
  resources: [agentqueues]
  verbs: [get, list, watch]
{{- end }}
