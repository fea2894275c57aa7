#!/usr/bin/env bash
# Installs what the tests call and what is not Go: the proxies that ask the
# gate, and the JWT libraries of other languages. It asks apt only for what is
# missing, as root or through sudo, and otherwise says what to install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  nginx-extras lua-cjson lua-nginx-cookie lua-nginx-dns lua-nginx-string lua-resty-core lua-resty-lrucache
  caddy haproxy
  python3-jwt python3-cryptography
  iproute2 curl openssl
)
missing=()
if command -v dpkg-query >/dev/null; then
  for p in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
    [[ $state == installed ]] || missing+=("$p")
  done
else
  missing=("${packages[@]}")
fi
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)

if ((${#missing[@]})); then
  if ! command -v apt-get >/dev/null; then
    echo "deps: there is no apt-get here; install what these Debian packages hold: ${missing[*]}" >&2
    exit 1
  fi
  root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "deps: neither root nor sudo; as root, run: apt-get install ${missing[*]}" >&2
      exit 1
    fi
    root=(sudo)
  fi
  echo "deps: installing ${missing[*]}" >&2
  "${root[@]}" apt-get update -q
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# npm leaves .package-lock.json behind when it is done.
interop=hack/e2e/interop
if [[ -f $interop/package-lock.json && ! $interop/node_modules/.package-lock.json -nt $interop/package-lock.json ]]; then
  (cd "$interop" && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json)
fi
