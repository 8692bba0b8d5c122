#!/usr/bin/env bash
# Breaks the code on purpose, in a copy, once for each patch of tests/sim/planted or of those that
# are named, and runs the simulation on it: a bug that is not noticed fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
patches=("$@")
[ $# -gt 0 ] || patches=(tests/sim/planted/*.patch)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R .cargo Cargo.toml Cargo.lock README.md config.json src tests fixtures "$copy"
# Its own folder: the program that is built here is broken.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/planted"
export CARGO_PROFILE_DEV_DEBUG=0

# The first seed that notices is enough.
export OKX_STORE_FAILURES=1
test=runs::the_store_becomes_equal_to_the_exchange_whatever_happens

missed=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    patch -d "$copy" -p1 -s <"$patch"
    built=$(cd "$copy" && cargo test -q --locked --test sim --no-run 2>&1) || {
        echo "$name: does not build: $built"
        exit 1
    }
    if said=$(cd "$copy" && cargo test -q --locked --test sim -- --exact "$test" 2>&1); then
        echo "$name: NOT NOTICED"
        missed=$((missed + 1))
    else
        found=$(grep -m 1 '^seed [0-9]*: ' <<<"$said" || tail -n 3 <<<"$said")
        echo "$name: ${found:0:160}"
    fi
    patch -d "$copy" -p1 -s -R <"$patch"
done
[ "$missed" -eq 0 ]
