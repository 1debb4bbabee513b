# Included by the Makefile at the top. Builds the Java harness once per change of its sources
# (Maven fetches rocketmq-store and what it needs from Maven Central into ~/.m2) and exchanges
# store directories with it. Without Java or Maven it says so, loudly, and succeeds.

INTEROP_JAVA := test/interop/java
INTEROP_SOURCES := $(INTEROP_JAVA)/pom.xml $(wildcard $(INTEROP_JAVA)/src/main/java/*/*.java)
INTEROP_MVN ?= mvn -q -B

.PHONY: interop-store interop-store-long interop-goldens

interop-store: ## exchange store directories with Apache rocketmq-store 4.9 and 5.3 (needs Java and Maven)
	@if command -v java >/dev/null && command -v javac >/dev/null && command -v mvn >/dev/null; then \
		$(MAKE) --no-print-directory $(INTEROP_JAVA)/target/store49/classpath $(INTEROP_JAVA)/target/store53/classpath && \
		echo go test -tags interop -count=1 -timeout 15m $(INTEROP_FLAGS) ./test/interop && \
		go test -tags interop -count=1 -timeout 15m $(INTEROP_FLAGS) ./test/interop; \
	else \
		echo "************************************************************************"; \
		echo "* interop-store: SKIPPED. No JDK with Maven on PATH, so NOTHING was      "; \
		echo "* exchanged with the Apache store. Install a JDK (11 or later) and Maven."; \
		echo "************************************************************************"; \
	fi

interop-store-long: ## the same with more rounds and seeds
	RMQ_INTEROP_LONG=1 $(MAKE) --no-print-directory interop-store

interop-goldens: ## let Apache write the sample directories of test/compat anew
	$(MAKE) --no-print-directory interop-store INTEROP_FLAGS='-run TestGoldens -regenerate'

$(INTEROP_JAVA)/target/%/classpath: $(INTEROP_SOURCES)
	cd $(INTEROP_JAVA) && $(INTEROP_MVN) -P $* package
	@touch $@

WIRE_JAVA := test/interop/wire
WIRE_SOURCES := $(WIRE_JAVA)/pom.xml $(wildcard $(WIRE_JAVA)/src/main/java/*/*.java)
WIRE_CLASSPATHS := $(WIRE_JAVA)/target/wire49/classpath $(WIRE_JAVA)/target/wire53/classpath

.PHONY: interop-wire interop-wire-goldens

interop-wire: ## let the classes of the Java client 4.9 and 5.3 decode our frames (needs Java and Maven)
	@if command -v java >/dev/null && command -v javac >/dev/null && command -v mvn >/dev/null; then \
		$(MAKE) --no-print-directory $(WIRE_CLASSPATHS) && \
		echo go test -tags interop -count=1 -timeout 5m -run TestWire ./test/interop && \
		go test -tags interop -count=1 -timeout 5m -run TestWire ./test/interop; \
	else \
		echo "************************************************************************"; \
		echo "* interop-wire: SKIPPED. No JDK with Maven on PATH, so NOTHING was       "; \
		echo "* decoded by the Java client. Install a JDK (11 or later) and Maven.     "; \
		echo "************************************************************************"; \
	fi

interop-wire-goldens: $(WIRE_CLASSPATHS) ## let the Java client write the sample frames of test/compat anew
	java -cp $(WIRE_JAVA)/target/wire49/classes:$$(cat $(WIRE_JAVA)/target/wire49/classpath) wire.Main encode > test/compat/testdata/wire/client-4.9.8.jsonl
	java -cp $(WIRE_JAVA)/target/wire53/classes:$$(cat $(WIRE_JAVA)/target/wire53/classpath) wire.Main encode > test/compat/testdata/wire/client-5.3.3.jsonl

$(WIRE_JAVA)/target/%/classpath: $(WIRE_SOURCES)
	cd $(WIRE_JAVA) && $(INTEROP_MVN) -P $* package
	@touch $@
