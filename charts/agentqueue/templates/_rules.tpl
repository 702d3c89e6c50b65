{{- /* Made by tools/chart.py; `make generated` makes it anew. */ -}}
{{- define "agentqueue.rules.own" -}}
# one of several replicas leads
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}
{{- define "agentqueue.rules" -}}
# what is wanted
- apiGroups: [agentqueue.dev]
  resources: [agentqueues]
  verbs: [get, list, watch]
# conditions and numbers
- apiGroups: [agentqueue.dev]
  resources: [agentqueues/status]
  verbs: [patch]
# workers and consoles
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# whether a scale-in has been carried out
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get]
# managed Redis servers
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# addresses of Redis servers and consoles
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# pods run without rights of their own
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Redis's configuration; users' code, whose changes roll the pods
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# who may reach Redis and the console
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# pods that a drain may take away
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# metrics, where Prometheus' operator is installed
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
# their state; the cost of deleting one, before scaling in
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# larger storage for Redis
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, patch]
# what happened, for kubectl describe
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.rbac.readSecrets }}
# generated passwords; users' Secrets, whose changes roll the pods
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
{{- else }}
# generated passwords; users' Secrets, whose changes roll the pods
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
{{- end }}
{{- end }}
