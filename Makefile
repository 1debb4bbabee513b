# rmq: build, test, measure. `make help` lists the targets.

GO          ?= go
GOFLAGS_TEST = -p 2 -timeout 280s
BIN          = bin
CMDS         = $(notdir $(wildcard cmd/*))
FUZZTIME    ?= 3s
TRIALS      ?= 100

.DEFAULT_GOAL := help
REF         ?= HEAD
BENCH       ?= .
COUNT       ?= 6
TOOL         = $(GO) tool -modfile=tools/go.mod

.PHONY: help build man bench-quick test race vet lint fmt fmt-check tidy tidy-check generate fuzz-smoke metamorphic \
	crash crash-short bench bench-process bench-compare e2e cover clean ci clean-tree go-version

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

go-version:
	@command -v $(GO) >/dev/null || { echo "make: no Go found: install Go 1.26 or later and put it on PATH"; exit 1; }
	@$(GO) version | awk '{split(substr($$3,3),v,"."); if (v[1]<1 || v[1]==1 && v[2]<26) {print "make: " $$3 " is too old: install Go 1.26 or later"; exit 1}}'

build: go-version ## build every command into bin/
	@mkdir -p $(BIN)
	$(GO) build -o $(BIN)/ ./cmd/...

man: build ## manual pages of mqadmin, into bin/man
	$(BIN)/mqadmin man $(BIN)/man

bench-quick: build ## probe the machine, run the smoke matrix, print the table, write report.html under results/
	$(BIN)/rmqbench run --quick

test: go-version vet ## every fast test, at most 5 minutes on 2 cores
	$(GO) test $(GOFLAGS_TEST) ./...

vet: go-version
	$(GO) vet ./...

race: ## the tests of what has goroutines, under the race detector
	$(GO) test -race -short -p 2 -timeout 600s ./internal/... ./message ./engine/... ./remoting ./namesrv ./broker ./client ./replication/... ./test/e2e ./cmd/mqnamesrv ./bench ./bench/driver/...

lint: go-version ## every linter of .golangci.yml; the first build of golangci-lint takes minutes
	$(GO) tool -modfile=tools/lint/go.mod golangci-lint run

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

fmt-check:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "not formatted: $$bad"; exit 1; }

tidy: ## put go.mod in order
	$(GO) mod tidy

generate: ## run the go:generate lines
	$(GO) generate ./...

tidy-check:
	$(GO) mod tidy -diff

fuzz-smoke: ## every fuzz target for FUZZTIME=3s
	@set -e; for pkg in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		for f in $$(cat $$pkg/*_test.go | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			echo "fuzz ./$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) ./$$pkg; \
		done; done

metamorphic: ## the model and metamorphic tests of the engine, longer
	$(GO) test -count=1 -timeout 1800s -run 'Model|Metamorphic' ./engine -rapid.checks=2000

crash: ## TRIALS=100 SIGKILLs and 100 power cuts per flush and write mode
	RMQ_CRASH_TRIALS=$(TRIALS) $(GO) test -count=1 -v -timeout 3600s -run 'PowerCut|EveryCallFails|Kill' ./engine ./internal/crashtest

crash-short: ## a few of each; what CI runs
	$(GO) test -count=1 -v -timeout 280s -run 'PowerCut|Kill' ./engine ./internal/crashtest

-include test/interop/interop.mk
-include test/interop/wire/interop.mk
-include test/drills/drills.mk

bench: ## the Go benchmarks, ready for benchstat
	$(GO) test -run '^$$' -bench '$(BENCH)' -count $(COUNT) ./engine ./message ./namesrv

bench-process: ## the real processes: cold start, memory, pulling a backlog, a replica that catches up or idles
	$(GO) test -run '^$$' -bench . -benchtime 3x -count $(COUNT) ./bench/driver/wire

bench-compare: ## the benchmarks of REF=HEAD against the working tree, interleaved, through benchstat
	@set -e; tmp=$$(mktemp -d); trap 'git worktree remove --force $$tmp/ref; rm -rf $$tmp' EXIT; \
	git worktree add -q --detach $$tmp/ref $(REF); \
	for pkg in engine message; do \
		$(GO) test -c -o $$tmp/new.$$pkg ./$$pkg; (cd $$tmp/ref && $(GO) test -c -o $$tmp/old.$$pkg ./$$pkg); done; \
	for i in $$(seq $(COUNT)); do for pkg in engine message; do for side in old new; do \
		(cd $$pkg && $$tmp/$$side.$$pkg -test.run '^$$' -test.bench '$(BENCH)') >> $$tmp/$$side.txt; done; done; done; \
	$(TOOL) benchstat $$tmp/old.txt $$tmp/new.txt

e2e: build ## the commands themselves, clusters with the Go client, then a quick run
	$(GO) test -count=1 ./cmd/... ./test/e2e
	$(BIN)/rmqbench run --quick

cover: ## statement coverage
	$(GO) test -p 2 -coverprofile=coverage.out ./... && $(GO) tool cover -func=coverage.out | tail -1

clean: ## remove what was built
	rm -rf $(BIN) coverage.out

clean-tree:
	@[ -z "$$(git status --porcelain)" ] || { echo "the working tree is not clean:"; git status --short; exit 1; }

ci: fmt-check vet tidy-check generate lint race fuzz-smoke crash-short drills-short robust-short interop-store interop-short clean-tree ## what CI runs after the tests
