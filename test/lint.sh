#!/usr/bin/env bash
# gofmt, go vet, golangci-lint (import arrows and the usual suspects) and tsc.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || { printf 'gofmt these:\n%s\n' "$unformatted"; exit 1; }

echo "go vet"
go vet ./...

linter=.cache/golangci-lint
if [ ! -x "$linter" ] || [ deploy/tools/go.mod -nt "$linter" ]; then
	echo "building golangci-lint from deploy/tools/go.mod (once, some minutes)"
	mkdir -p .cache
	go build -modfile=deploy/tools/go.mod -o "$linter" github.com/golangci/golangci-lint/v2/cmd/golangci-lint
fi
echo "golangci-lint"
"$linter" run --timeout 10m ./...

if git grep -qE '"resolved": *"http' -- '*package-lock.json'; then
	echo "package-lock.json carries download addresses; .npmrc must leave them out"
	exit 1
fi
if [ -d node_modules/typescript ]; then
	echo "tsc (browser modules)"
	npm run --silent check
fi
