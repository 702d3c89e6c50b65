{{- /* Made by tools/chart.py; `make generated` makes it anew. */ -}}
{{- define "agentqueue.rules.own" -}}
# leader election among replicas
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}
{{- define "agentqueue.rules" -}}
# the desired state
- apiGroups: [agentqueue.dev]
  resources: [agentqueues]
  verbs: [get, list, watch]
# conditions and counts
- apiGroups: [agentqueue.dev]
  resources: [agentqueues/status]
  verbs: [patch]
# workers and consoles
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# check that a scale-in is done
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
# pods without any permissions
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Redis's configuration; users' code, to roll pods on changes
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# access to Redis and the console
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# limits on evictions
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# metrics, if the Prometheus Operator is installed
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
# the state of pods; their deletion cost before a scale-in
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# larger storage for Redis
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, patch]
# events for kubectl describe
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.rbac.readSecrets }}
# generated passwords; users' Secrets, to roll pods on changes
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
{{- else }}
# generated passwords; users' Secrets, to roll pods on changes
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
{{- end }}
{{- end }}
