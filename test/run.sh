#!/usr/bin/env bash
# Runs every test: Go with the race detector, browser modules with node --test.
# Packages run side by side; each starts its broker or engine once.
# SIGNALBOX_TEST_STRICT=1 turns everything that would be skipped into a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
export SIGNALBOX_TEST_STRICT="${SIGNALBOX_TEST_STRICT:-0}"

# The packages that take longest, first: none of them is left to run alone.
longest="./test/fault ./ui ./test/e2e ./storage/clickhouse ./agents/detour ./agents/action ./agents/rabbitmq ./agents/nats"

# Some packages run programs that they build themselves, which the test cache does
# not see change. They read this, and so their results are never the cache's.
SIGNALBOX_TEST_RUN=$(date +%s%N)
export SIGNALBOX_TEST_RUN

started=$SECONDS
echo "go test -race ./... (strict: $SIGNALBOX_TEST_STRICT; the first run compiles for some minutes)"
# shellcheck disable=SC2086 # a list
go test -race -timeout 15m $longest ./...
echo "node --test (browser modules)"
npm run --silent test
echo "all tests passed in $((SECONDS - started)) s"
