# Everything a newcomer needs is `make run` and `make test`. Both bring what
# they need; nothing is installed outside this folder except Debian packages
# that the tests name (test/provision.sh).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN        := bin
VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS    := -X main.version=$(VERSION)
GO_SOURCES := $(shell find . -name '*.go' -not -path './node_modules/*' -not -path './.cache/*' 2>/dev/null)
UI_SOURCES := $(shell find ui/asset -type f -not -path 'ui/asset/dist/*' 2>/dev/null)
TOOLS      := deploy/tools/go.mod
RATE       ?= 5

.PHONY: help run test lint generate verify bench soak reference e2e screenshots dev deps assets build fuzz provision clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## start the demo: console, store, broker, agent and a small company that talks
	@exec $(BIN)/signalbox demo --data .data/demo --rate $(RATE)

test: provision assets ## every test, against real brokers, the real engine and a real browser
	@test/run.sh

e2e: provision build ## only the tests that drive the built programs and a browser
	@SIGNALBOX_TEST_STRICT=$${SIGNALBOX_TEST_STRICT:-0} go test -count=1 ./test/e2e/... ./test/script/...

screenshots: provision build ## docs/screenshots, taken from a demo that runs for five minutes
	@SIGNALBOX_SCREENSHOTS=$(CURDIR)/.data/screenshots go test -count=1 -timeout 15m -run TestScreenshots ./test/e2e
	@SIGNALBOX_SCREENSHOTS=$(CURDIR)/.data/screenshots go test -count=1 -run TestBrowserAccess ./ui
	@rm -f docs/screenshots/*.png
	@cp .data/screenshots/*-light-1280.png .data/screenshots/*-dark-390.png docs/screenshots/

soak: provision build ## long reliability runs: a million messages under kill -9, slow taps, heartbeats
	@SIGNALBOX_SOAK=1 go test -count=1 -timeout 60m -v -run 'Soak|Fault|Commands|Kill|StoppedTap|UnderLoad|Junction|Herd|Protocol' ./test/fault/... ./agents/... ./controlbus/link ./storage/spool/... ./storage/state

bench: assets ## benchmarks of the hot paths, with allocations
	@go test -run '^$$' -bench . -benchmem ./collector/... ./controlbus/... ./storage/... ./agents/... ./ui/...

reference: node_modules ## compare the Prometheus API with Prometheus itself, and renew the answers it is held to
	@cd test/prometheus && go test -mod=mod -count=1 -v -run TestAnswersArePrometheusOwn . -update -seeds $(or $(SEEDS),3)

fuzz: ## each fuzz target for FUZZTIME (20s)
	@test/fuzz.sh $(or $(FUZZTIME),20s)

lint: ## gofmt, vet, golangci-lint with the import arrows, tsc
	@test/lint.sh

generate: node_modules ## templ components, the tests' API client and browser assets
	@go tool templ generate -log-level warn
	@go tool -modfile=$(TOOLS) oapi-codegen -config ui/api/apitest/oapi-codegen.yaml -o ui/api/apitest/client.gen.go ui/api/openapi.yaml
	@npm run --silent build

verify: generate ## regenerate and fail on a difference
	@git diff --exit-code --stat -- . || { echo "generated files are out of date: commit what 'make generate' wrote"; exit 1; }

dev: node_modules ## serve with assets from disk, regenerate and restart on change
	@go tool templ generate --watch --open-browser=false --proxyport 8471 --proxy http://127.0.0.1:8470 --cmd "go run ./cmd/signalbox demo --dev --data .data/demo --rate $(RATE)"

build: assets $(BIN)/signalbox $(BIN)/signalbox-agent ## bin/signalbox and bin/signalbox-agent

$(BIN)/signalbox $(BIN)/signalbox-agent &: $(GO_SOURCES) go.mod go.sum ui/asset/dist/.built
	@echo "building bin/signalbox and bin/signalbox-agent (the first time fetches modules and takes a minute or two)"
	@mkdir -p $(BIN)
	@go build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

assets: ui/asset/dist/.built
ui/asset/dist/.built: node_modules/.package-lock.json $(UI_SOURCES) package.json
	@echo "bundling browser assets"
	@npm run --silent build
	@touch $@

deps: node_modules/.package-lock.json ## front-end libraries and the embedded engine, pinned
node_modules: node_modules/.package-lock.json
node_modules/.package-lock.json: package.json package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 20 or newer"; exit 1; }
	@echo "fetching front-end libraries and the embedded engine (about 550 MB unpacked, once)"
	@npm ci --no-audit --no-fund --loglevel=error
	@touch $@

provision:
	@test/provision.sh

clean: ## remove what was built, keep data and downloads
	@rm -rf $(BIN) ui/asset/dist/*.js ui/asset/dist/*.css ui/asset/dist/.built
