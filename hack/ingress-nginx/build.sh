#!/bin/bash
# Builds the real ingress-nginx controller, and what its nginx needs, into the cache; prints the folder.
#
#   hack/ingress-nginx/build.sh        folder on stdout, progress on stderr
#
# The controller comes from its Go module, pinned and verified by go.mod and go.sum beside this script (a `tool`
# there, so that nothing but the module proxy is asked), because its image cannot be pulled everywhere. The nginx
# below it is Debian's nginx-extras: the template is adapted to its modules (template.awk) and the Lua libraries
# that Debian does not package are stood in for (lua/). Package hack/e2e/ingressnginx runs the result.
#
# The folder:
#   bin/nginx-ingress-controller
#   etc/nginx/{nginx.conf,template/nginx.tmpl,lua/}
# It is named by the version and by a hash of all that goes into it, appears whole or not at all, and is
# safe to ask for from many processes at once.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
module=k8s.io/ingress-nginx
say() { echo "ingress-nginx: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -s)" = Linux ] || die "the controller runs nginx in Linux namespaces; this is $(uname -s)"
command -v go >/dev/null || die "go is not in PATH"
command -v flock >/dev/null || die "flock is not in PATH (Debian package util-linux)"

cd "$here"
export GOWORK=off CGO_ENABLED=0
version=$(awk -v m="$module" '$1 == "require" && $2 == m {print $3}' go.mod)
[ -n "$version" ] || die "go.mod does not require $module"
hash=$({
  go env GOVERSION GOARCH
  find build.sh template.awk go.mod go.sum lua -type f | LC_ALL=C sort | while read -r f; do
    echo "$f"; cat "$f"
  done
} | sha256sum | cut -c1-12)

cache=${KEYWRIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keywright}/ingress-nginx
out=$cache/$version-$hash
if [ -d "$out" ]; then echo "$out"; exit 0; fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock --nonblock 9 || { say "another process is building; waiting for it"; flock 9; }
if [ -d "$out" ]; then echo "$out"; exit 0; fi

tmp=$(mktemp -d "$cache/.build.XXXXXX")
build=
clean() {
  if [ -n "$build" ]; then kill "$build" 2>/dev/null || true; fi
  chmod -R u+w "$tmp" && rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 130' INT TERM
started=$SECONDS

# attended LOG WHAT COMMAND… runs the command and says every three seconds how far it is.
attended() {
  local log=$1 what=$2 status=0; shift 2
  "$@" >"$log" 2>&1 9>&- &
  build=$!
  local ticks=0
  while kill -0 "$build" 2>/dev/null; do
    sleep 0.2
    ticks=$((ticks + 1))
    if [ $((ticks % 15)) = 0 ]; then say "$what, $((SECONDS - started)) s: $(tail -n 1 "$log")"; fi
  done
  wait "$build" || status=$?
  build=
  if [ "$status" != 0 ]; then tail -n 40 "$log" >&2; die "$what failed"; fi
}

say "building $version into $out (once; about three minutes of CPU)"
mkdir -p "$tmp/out/bin" "$tmp/out/etc/nginx/template"
attended "$tmp/build.log" "downloading and compiling" nice -n 5 go build -v -mod=readonly -trimpath -buildvcs=false \
  -ldflags "-s -w -X $module/version.RELEASE=$version -X $module/version.REPO=$module" \
  -o "$tmp/out/bin/nginx-ingress-controller" "$module/cmd/nginx"

rootfs=$(go list -m -f '{{.Dir}}' "$module")/rootfs/etc/nginx
cp "$rootfs/nginx.conf" "$tmp/out/etc/nginx/nginx.conf"
cp -r "$rootfs/lua" "$tmp/out/etc/nginx/lua"
chmod -R u+w "$tmp/out" # the module cache is read-only, and cp keeps modes
rm -rf "$tmp/out/etc/nginx/lua/test"
cp -r lua/. "$tmp/out/etc/nginx/lua/"
awk -f template.awk "$rootfs/template/nginx.tmpl" > "$tmp/out/etc/nginx/template/nginx.tmpl"

mv -T "$tmp/out" "$out"
say "built in $((SECONDS - started)) s"
echo "$out"
