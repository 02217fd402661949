#!/usr/bin/env bash
# Runs every test: Go with the race detector, browser modules with node --test.
# Packages run side by side; each starts its broker or engine once.
# SIGNALBOX_TEST_STRICT=1 turns everything that would be skipped into a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
export SIGNALBOX_TEST_STRICT="${SIGNALBOX_TEST_STRICT:-0}"

started=$SECONDS
echo "go test -race ./... (strict: $SIGNALBOX_TEST_STRICT; the first run compiles for some minutes)"
go test -race -timeout 15m $(go list ./... | grep -vE '/test/(e2e|fault|script)$|/cmd/signalbox-agent$')
# These run programs that they build themselves, so the test cache does not see
# when those change.
go test -race -count=1 -timeout 15m ./test/e2e ./test/fault ./test/script ./cmd/signalbox-agent
echo "node --test (browser modules)"
npm run --silent test
echo "all tests passed in $((SECONDS - started)) s"
