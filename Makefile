# rmq: build, test, measure. `make help` lists the targets.

GO          ?= go
GOFLAGS_TEST = -p 2 -timeout 280s
BIN          = bin
CMDS         = $(notdir $(wildcard cmd/*))
FUZZTIME    ?= 3s
TRIALS      ?= 100

.DEFAULT_GOAL := help
.PHONY: help build bench-quick test race vet lint fmt fmt-check tidy tidy-check fuzz-smoke metamorphic crash crash-short \
	interop-store interop-store-short bench bench-compare cover clean ci clean-tree go-version

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

go-version:
	@command -v $(GO) >/dev/null || { echo "make: no Go found: install Go 1.26 or later and put it on PATH"; exit 1; }
	@$(GO) version | awk '{split(substr($$3,3),v,"."); if (v[1]<1 || v[1]==1 && v[2]<26) {print "make: " $$3 " is too old: install Go 1.26 or later"; exit 1}}'

build: go-version ## build every command into bin/
	@mkdir -p $(BIN)
	$(GO) build -o $(BIN)/ ./cmd/...

bench-quick: build ## probe the machine, run the smoke matrix, print the table, write report.html under results/
	$(BIN)/rmqbench run --quick

test: go-version vet ## every fast test, at most 5 minutes on 2 cores
	$(GO) test $(GOFLAGS_TEST) ./...

vet: go-version
	$(GO) vet ./...

race: ## the tests of what has goroutines, under the race detector
	$(GO) test -race -short -p 2 -timeout 600s ./internal/... ./message ./engine/mappedfile ./engine ./bench/... ./results/...

lint: ## the linters of .golangci.yml
	$(GO) tool -modfile=tools/lint/go.mod golangci-lint run

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

fmt-check:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "not formatted: $$bad"; exit 1; }

tidy: ## put go.mod in order
	$(GO) mod tidy

tidy-check:
	$(GO) mod tidy -diff

fuzz-smoke: ## every fuzz target for $(FUZZTIME)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "fuzz $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; done

metamorphic: ## the model and metamorphic tests of the engine, longer
	$(GO) test -count=1 -timeout 1800s -run 'Model|Metamorphic' ./engine -rapid.checks=2000

crash: ## 100 SIGKILLs and 100 power cuts per flush and write mode
	RMQ_CRASH_TRIALS=$(TRIALS) $(GO) test -count=1 -v -timeout 3600s -run 'PowerCut|EveryCallFails|Kill' ./engine ./internal/crashtest

crash-short:
	$(GO) test -count=1 -v -timeout 600s -run 'Kill' ./internal/crashtest

-include test/interop/interop.mk

bench: ## the Go benchmarks, ready for benchstat
	$(GO) test -run '^$$' -bench . -count 6 ./engine ./message

cover: ## statement coverage
	$(GO) test -p 2 -coverprofile=coverage.out ./... && $(GO) tool cover -func=coverage.out | tail -1

clean: ## remove what was built
	rm -rf $(BIN) coverage.out

clean-tree:
	@[ -z "$$(git status --porcelain)" ] || { echo "the working tree is not clean:"; git status --short; exit 1; }

ci: fmt-check vet tidy-check race fuzz-smoke crash-short interop-store clean-tree ## what CI runs after the tests
