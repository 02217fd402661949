#!/usr/bin/env bash
# Runs every fuzz target for the time given (default 20s).
set -euo pipefail
cd "$(dirname "$0")/.."
for_each=${1:-20s}
grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -hoE '^func (Fuzz[A-Za-z0-9_]+)' "$dir"/*_test.go | awk '{print $2}' | sort -u | while read -r target; do
		echo "$dir $target"
		go test "$dir" -run '^$' -fuzz "^${target}\$" -fuzztime "$for_each" </dev/null
	done
done
