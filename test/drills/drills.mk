# Included by the Makefile at the top. Drills run the programs of bin/ on 127.0.0.1, .2 and .3.

DRILLS := go test -tags drills -count=1 $(DRILL_FLAGS)

.PHONY: drills drills-short robust build-faults

build-faults: go-version ## programs with fault injection, for tests only, into bin/faults
	@mkdir -p $(BIN)/faults
	$(GO) build -tags faults -o $(BIN)/faults/ ./cmd/mqbroker

drills: build ## failover drills of conf/single and conf/2m-noslave on the real programs
	$(DRILLS) -v -timeout 10m -run '^TestDrill' ./test/drills

robust: build ## kills under load (RMQ_ROUNDS=30), cut connections, slow clients, bad input, full disks
	RMQ_ROUNDS=$${RMQ_ROUNDS:-30} $(DRILLS) -v -timeout 30m -run '^TestRobust' ./test/drills

drills-short: build ## a few rounds of both; what CI runs
	go vet -tags drills ./test/drills
	RMQ_ROUNDS=3 $(DRILLS) -timeout 5m ./test/drills
