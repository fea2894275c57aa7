#!/usr/bin/env bash
# Prints the folder that holds etcd, kube-apiserver, kube-controller-manager
# and kubectl, and makes it first when there is none. Progress and errors go to
# stderr; the folder alone goes to stdout, so that a caller can read it.
#
# Order: KUBEBUILDER_ASSETS, when it holds all four programs; then the cache,
# by version; then a build from the Go modules pinned in go.mod.
# setup-envtest is left out on purpose: its archive has no
# kube-controller-manager, and without that nothing collects garbage, deletes
# namespaces or makes service accounts.
set -euo pipefail

programs=(etcd kube-apiserver kube-controller-manager kubectl)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'controlplane: %s\n' "$*" >&2; }

complete() { # folder
  local p
  for p in "${programs[@]}"; do [[ -x $1/$p ]] || return 1; done
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  if complete "$KUBEBUILDER_ASSETS"; then
    echo "$KUBEBUILDER_ASSETS"
    exit
  fi
  say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS does not hold all of: ${programs[*]}; looking in the cache instead"
fi

cd "$here"
version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' go.mod)
hash=$(cat go.mod main.go | sha256sum | cut -c1-12)
cache=${KEYWRIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keywright}/controlplane
folder=$cache/$version-$hash

if complete "$folder"; then
  echo "$folder"
  exit
fi

for need in go flock; do
  command -v "$need" >/dev/null || { say "building needs the program $need, and it is not installed"; exit 1; }
done

mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock -n 9; then
  say "another build is running; waiting for it"
  flock 9
fi
if complete "$folder"; then # made by the one that we waited for
  echo "$folder"
  exit
fi

tmp=$(mktemp -d "$cache/building.XXXXXX")
job=
cleanup() {
  if [[ -n $job ]]; then kill "$job" 2>/dev/null || true; fi
  rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# follow runs a go command in the background and reports what its log shows
# every two seconds until it ends.
follow() { # what, pattern of a log line that counts, total, command...
  local what=$1 pattern=$2 total=$3 begin=$SECONDS next=0 n rc=0
  shift 3
  "$@" >"$tmp/out" 2>"$tmp/log" 9>&- &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    if (( SECONDS < next )); then continue; fi
    next=$((SECONDS + 2))
    n=$(grep -cE "$pattern" "$tmp/log" || true)
    say "$what: $n${total:+ of at most $total}, $((SECONDS - begin)) s"
  done
  wait "$job" || rc=$?
  job=
  if (( rc != 0 )); then
    tail -n 30 "$tmp/log" >&2
    say "$what failed (exit $rc)"
    exit 1
  fi
}

export CGO_ENABLED=0 GOWORK=off
say "building Kubernetes $version and etcd from their Go modules, once: about 14 minutes of CPU when nothing is compiled yet"
follow "modules downloaded" '^go: downloading' '' go list -deps .
total=$(wc -l <"$tmp/out")

# Without these the server reports v0.0.0, and a chart's kubeVersion check fails.
V=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${V#v}"
stamp=
for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=" -X $p.gitVersion=$V -X $p.gitMajor=$major -X $p.gitMinor=$minor -X $p.gitCommit=module -X $p.gitTreeState=clean"
done
follow "packages compiled" '^[^ ]+$' "$total" \
  go build -v -buildvcs=false -ldflags "-s -w$stamp" -o "$tmp/bin/kube" .

for p in "${programs[@]}"; do ln -s kube "$tmp/bin/$p"; done
rm -rf "$folder" # one that is not complete, or we would not be here
mv "$tmp/bin" "$folder"
say "done: $folder"
echo "$folder"
