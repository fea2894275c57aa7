#!/usr/bin/env bash
# Generates everything again and fails, with the difference, when that changes
# a file. It compares with the files as they are, not with the last commit, so
# that it can be run before one; what is not committed shows in a fresh clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

generated=(api config charts docs)
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
cp -R "${generated[@]}" "$before/"

make generate

changed=0
for d in "${generated[@]}"; do
  diff -ruN "$before/$d" "$d" || changed=1
done
if ((changed)); then
  echo "verify: generated files were not up to date; they are now: look at the difference above and commit it" >&2
  exit 1
fi
