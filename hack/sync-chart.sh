#!/usr/bin/env bash
# Keeps what is said twice the same in both places:
#
#   config/crd/bases (controller-gen) ──► charts/keywright/templates/crds
#   charts/keywright (Helm)           ──► config/{rbac,admission,manager}
#
# The files written here are never edited by hand. `make generate` runs it and
# `make verify` fails when a run changes anything.
#
# HELM is the Helm to render with (bin/helm when not set; `make bin/helm`).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
helm=${HELM:-bin/helm}
chart=charts/keywright
namespace=keywright-system

command -v "$helm" >/dev/null || { echo "sync-chart: $helm is missing: run \`make bin/helm\`, or set HELM" >&2; exit 1; }

crd() { # file, to the chart
  local annotation='  annotations:'
  if grep -q '{{' "$1"; then
    echo "sync-chart: $1 holds {{, which Helm would take for a template" >&2
    return 1
  fi
  if (($(grep -cx "$annotation" "$1") != 1)); then
    echo "sync-chart: $1 has not exactly one line \"$annotation\", after which to say what Helm keeps" >&2
    return 1
  fi
  echo '{{- /* Written by hack/sync-chart.sh from config/crd/bases. */ -}}'
  echo '{{- if .Values.crds.enabled }}'
  sed -e '1{/^---$/d}' -e "s/^$annotation\$/&\n    {{- if .Values.crds.keep }}\n    helm.sh\/resource-policy: keep\n    {{- end }}/" "$1"
  echo '{{- end }}'
}

# Labels that say how something was installed are Helm's; they would be wrong
# on what kubectl applies.
render() { # template...
  local t args=()
  for t in "$@"; do args+=(--show-only "templates/$t"); done
  echo '# Written by hack/sync-chart.sh from charts/keywright.'
  "$helm" template keywright "$chart" --namespace "$namespace" --set webhook.tls.secretName=keywright-webhook-tls "${args[@]}" |
    sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' -e '/^ *$/d'
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# All is made before anything is replaced, so that a failure leaves all as it was.
mkdir -p "$tmp/crds"
for f in config/crd/bases/*.yaml; do crd "$f" >"$tmp/crds/${f##*/}"; done
rm -rf "$chart/templates/crds"
mv "$tmp/crds" "$chart/templates/crds"

render controller/serviceaccount.yaml controller/rbac.yaml >"$tmp/controller-rbac"
render webhook/serviceaccount.yaml webhook/rbac.yaml >"$tmp/webhook-rbac"
render rbac/aggregated.yaml >"$tmp/aggregated"
render admission/status.yaml >"$tmp/status"
render controller/deployment.yaml controller/service.yaml >"$tmp/controller"
render webhook/deployment.yaml webhook/service.yaml webhook/poddisruptionbudget.yaml >"$tmp/webhook"

install -m 644 "$tmp/controller-rbac" config/rbac/controller.yaml
install -m 644 "$tmp/webhook-rbac" config/rbac/webhook.yaml
install -m 644 "$tmp/aggregated" config/rbac/aggregated.yaml
install -m 644 "$tmp/status" config/admission/status.yaml
install -m 644 "$tmp/controller" config/manager/controller.yaml
install -m 644 "$tmp/webhook" config/manager/webhook.yaml
