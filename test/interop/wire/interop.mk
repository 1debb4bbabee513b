# Included by the Makefile at the top. Builds the Java side once per change of its sources (Maven
# fetches the clients, tools and brokers of Apache RocketMQ from Maven Central into ~/.m2) and lets
# it speak with our programs over loopback. Without Java or Maven it says so, loudly, and succeeds.

WIRE_JAVA := test/interop/wire/java
WIRE_SOURCES := $(WIRE_JAVA)/pom.xml $(wildcard $(WIRE_JAVA)/src/main/java/*/*.java)
WIRE_LINES := client49 client54 server49 server54

.PHONY: interop interop-short interop-wire

interop: interop-wire ## stock Java clients, mqadmin and brokers against our programs (needs Java and Maven)

interop-short: ## the part of it that CI runs
	RMQ_INTEROP_SHORT=1 $(MAKE) --no-print-directory interop-wire

interop-wire: build
	@if command -v java >/dev/null && command -v javac >/dev/null && command -v mvn >/dev/null; then \
		$(MAKE) --no-print-directory $(WIRE_LINES:%=$(WIRE_JAVA)/target/%/classpath) && \
		echo go test -tags interop -count=1 -timeout 60m $(INTEROP_FLAGS) ./test/interop/wire $(INTEROP_ARGS) && \
		go test -tags interop -count=1 -timeout 60m $(INTEROP_FLAGS) ./test/interop/wire $(INTEROP_ARGS); \
	else \
		echo "************************************************************************"; \
		echo "* interop: SKIPPED. No JDK with Maven on PATH, so NO stock client spoke   "; \
		echo "* with our programs. Install a JDK (11 or later) and Maven.               "; \
		echo "************************************************************************"; \
	fi

.PHONY: interop-ha-goldens
interop-ha-goldens: ## let Apache's master and slave speak anew for the samples of replication/ha
	$(MAKE) --no-print-directory interop-wire INTEROP_FLAGS='-run TestApachePair' INTEROP_ARGS=-regenerate

$(WIRE_JAVA)/target/%/classpath: $(WIRE_SOURCES)
	cd $(WIRE_JAVA) && $(INTEROP_MVN) -P $* package
	@touch $@

.PHONY: bench-failover
bench-failover: build build-faults ## every event and client of rmqbench failover, the unmodified Java client 4.9.8 too: REPL=raft OUT=dir ARGS='--trials=100 --rate=50%'
	@if command -v java >/dev/null && command -v mvn >/dev/null; then $(MAKE) --no-print-directory $(WIRE_JAVA)/target/client49/classpath; fi
	$(BIN)/rmqbench failover --repl=$(or $(REPL),raft) $(if $(OUT),--out $(OUT)) \
		--java-client="$$(test ! -f $(WIRE_JAVA)/target/client49/classpath || echo java -Xms256m -Xmx256m -Duser.home=/tmp/rmqbench-java -cp $(WIRE_JAVA)/target/client49/classes:$$(cat $(WIRE_JAVA)/target/client49/classpath) failover.Main)" $(ARGS)

.PHONY: bench-apache
bench-apache: build $(WIRE_JAVA)/target/server54/classpath ## our brokers and Apache's in turn: REPL=none,async,sync,raft FLUSH=async,sync OUT=dir ARGS='--producers=4 --window=64'
	bench/peers/apache.sh $(or $(OUT),results/apache) $(ARGS)

.PHONY: bench-dledger
bench-dledger: build $(WIRE_JAVA)/target/server54/classpath ## rmqbench failover on a DLedger group of Apache's: FLUSH=async OUT=dir ARGS='--trials=30 --events=kill'
	bench/peers/dledger.sh $(or $(OUT),results/dledger) $(ARGS)
