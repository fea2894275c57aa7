#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, one after another:
# `go test -fuzz` takes one target of one package at a time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
time=${1:?usage: hack/fuzz.sh TIME (such as 1m)}

found=0
while IFS=: read -r file target; do
  found=$((found + 1))
  echo "== $target in ${file%/*}, $time"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./${file%/*}"
done < <(git ls-files --cached --others --exclude-standard '*_test.go' |
  xargs grep -oHE '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')

if ((found == 0)); then
  echo "fuzz: no fuzz target found" >&2
  exit 1
fi
echo "fuzz: $found targets, no failure"
