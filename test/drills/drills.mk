# Included by the Makefile at the top. Drills run the programs of bin/ on 127.0.0.1, .2 and .3.

DRILLS := go test -tags drills -count=1 $(DRILL_FLAGS)

.PHONY: drills drills-java drills-kills drills-short robust robust-short robust-cell build-faults

build-faults: go-version ## programs with fault injection, for tests only, into bin/faults
	@mkdir -p $(BIN)/faults
	$(GO) build -tags faults -o $(BIN)/faults/ ./cmd/mqbroker

drills: build drills-java ## failover drills of every topology of conf on the real programs
	$(DRILLS) -v -timeout 20m -run '^TestDrill' ./test/drills

drills-java: # the unmodified Java consumers of the drills, where there is a JDK with Maven
	@if command -v java >/dev/null && command -v mvn >/dev/null; then \
		$(MAKE) --no-print-directory $(WIRE_JAVA)/target/client49/classpath $(WIRE_JAVA)/target/client54/classpath; \
	else echo "* drills: no JDK with Maven, so NO unmodified Java consumer reads from slaves *"; fi

drills-kills: build ## RMQ_KILLS=100 times kill -9 of the leader of a group under load; the result goes into docs/ROBUSTNESS.md
	RMQ_KILLS=$${RMQ_KILLS:-100} RMQ_RESULTS=$(CURDIR)/test/robust/results $(DRILLS) -v -timeout 60m -run '^TestDrillLeaderKilled' ./test/drills
	$(GO) generate ./test/robust

robust: build build-faults ## the fault matrix, RMQ_N=5 runs a cell, goes on where it stopped; then kills under load, bad input, full disks
	RMQ_N=$${RMQ_N:-5} RMQ_RESULTS=$(CURDIR)/test/robust/results $(DRILLS) -v -timeout 180m -run '^TestMatrix' ./test/drills; rc=$$?; $(GO) generate ./test/robust; exit $$rc
	RMQ_ROUNDS=$${RMQ_ROUNDS:-30} $(DRILLS) -v -timeout 30m -run '^TestRobust' ./test/drills

robust-short: build build-faults ## a few cells of the fault matrix, once each; what CI runs
	$(DRILLS) -timeout 10m -run '^TestMatrix' ./test/drills

robust-cell: build build-faults ## one cell: RMQ_CELLS=F01 RMQ_MODES=rS RMQ_KEY=...
	RMQ_CELLS=$(RMQ_CELLS) RMQ_MODES=$(RMQ_MODES) RMQ_KEY=$(RMQ_KEY) $(DRILLS) -v -timeout 60m -run '^TestMatrix' ./test/drills

drills-short: build ## a few rounds of the drills, and of kills under load; what CI runs
	go vet -tags drills ./test/drills
	go vet -tags faults ./cmd/mqbroker
	RMQ_ROUNDS=3 $(DRILLS) -timeout 10m -run '^Test(DrillSingle|DrillTwoMasters|DrillGroup|DrillLeaderKilled|Robust)' ./test/drills
