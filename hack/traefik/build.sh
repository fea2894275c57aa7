#!/bin/bash
# Builds Traefik into the cache; prints the program's path.
#
#   hack/traefik/build.sh        path on stdout, progress on stderr
#
# Traefik comes from its Go module, pinned and verified by go.mod and go.sum beside this script, because its image
# cannot be pulled everywhere. Two things are not as in the published program: the dashboard is empty, as the module
# has no built one, and there are no DNS providers for certificates (lego/), whose clouds' libraries are most of what
# would be downloaded and compiled. Package hack/e2e/callers runs the result.
#
# The file is named by the version and by a hash of all that goes into it, appears whole or not at all, and is safe
# to ask for from many processes at once.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
module=github.com/traefik/traefik/v3
lego=github.com/go-acme/lego/v5
say() { echo "traefik: $*" >&2; }
die() { say "$*"; exit 1; }

command -v go >/dev/null || die "go is not in PATH"
command -v flock >/dev/null || die "flock is not in PATH (Debian package util-linux)"

cd "$here"
export GOWORK=off CGO_ENABLED=0
version=$(awk -v m="$module" '$1 == m {print $2} $1 == "require" && $2 == m {print $3}' go.mod)
[ -n "$version" ] || die "go.mod does not require $module"
hash=$({
  go env GOVERSION GOARCH
  find . -type f | LC_ALL=C sort | while read -r f; do
    echo "$f"; cat "$f"
  done
} | sha256sum | cut -c1-12)

cache=${KEYWRIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/keywright}/traefik
out=$cache/traefik-$version-$hash
if [ -x "$out" ]; then echo "$out"; exit 0; fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock --nonblock 9 || { say "another process is building; waiting for it"; flock 9; }
if [ -x "$out" ]; then echo "$out"; exit 0; fi

tmp=$(mktemp -d "$cache/.build.XXXXXX")
build=
clean() {
  if [ -n "$build" ]; then kill "$build" 2>/dev/null || true; fi
  rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 130' INT TERM
started=$SECONDS

say "building $version into $out (once; about ten minutes of CPU)"
go mod download "$module" "$lego"
cp -r "$(go list -m -f '{{.Dir}}' "$lego")" "$tmp/lego"
chmod -R u+w "$tmp/lego" # the module cache is read-only, and cp keeps modes
cp lego/dns_providers.go.txt "$tmp/lego/providers/dns/zz_gen_dns_providers.go"
cp go.mod "$tmp/build.mod"
cp go.sum "$tmp/build.sum"
go mod edit -replace "$lego=$tmp/lego" "$tmp/build.mod"
go mod edit -replace "github.com/traefik/traefik/dynamic/ext=$here/ext" "$tmp/build.mod"

nice -n 5 go build -v -modfile="$tmp/build.mod" -mod=readonly -trimpath -buildvcs=false \
  -ldflags "-s -w -X $module/pkg/version.Version=$version" \
  -o "$tmp/traefik" "$module/cmd/traefik" >"$tmp/log" 2>&1 9>&- &
build=$!
ticks=0
while kill -0 "$build" 2>/dev/null; do
  sleep 0.2
  ticks=$((ticks + 1))
  if [ $((ticks % 25)) = 0 ]; then say "downloading and compiling, $((SECONDS - started)) s: $(tail -n 1 "$tmp/log")"; fi
done
status=0
wait "$build" || status=$?
build=
if [ "$status" != 0 ]; then tail -n 40 "$tmp/log" >&2; die "compiling failed"; fi
mv -T "$tmp/traefik" "$out"
say "built in $((SECONDS - started)) s"
echo "$out"
