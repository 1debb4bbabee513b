# Included by the Makefile at the top. Builds the Java harness once per change of its sources
# (Maven fetches rocketmq-store and what it needs from Maven Central into ~/.m2) and exchanges
# store directories with it. Without Java or Maven it says so, loudly, and succeeds.

INTEROP_JAVA := test/interop/java
INTEROP_SOURCES := $(INTEROP_JAVA)/pom.xml $(wildcard $(INTEROP_JAVA)/src/main/java/*/*.java)
INTEROP_MVN ?= mvn -q -B

.PHONY: interop-store interop-store-long interop-goldens

interop-store: ## exchange store directories and frames with the classes of Apache 4.9 and 5.3 (needs Java and Maven)
	@if command -v java >/dev/null && command -v javac >/dev/null && command -v mvn >/dev/null; then \
		$(MAKE) --no-print-directory $(INTEROP_JAVA)/target/store49/classpath $(INTEROP_JAVA)/target/store53/classpath $(FRAMES_CLASSPATHS) && \
		echo go test -tags interop -count=1 -timeout 15m $(INTEROP_FLAGS) ./test/interop $(INTEROP_ARGS) && \
		go test -tags interop -count=1 -timeout 15m $(INTEROP_FLAGS) ./test/interop $(INTEROP_ARGS); \
	else \
		echo "************************************************************************"; \
		echo "* interop-store: SKIPPED. No JDK with Maven on PATH, so NOTHING was      "; \
		echo "* exchanged with the Apache store. Install a JDK (11 or later) and Maven."; \
		echo "************************************************************************"; \
	fi

interop-store-long: ## the same with more rounds and seeds
	RMQ_INTEROP_LONG=1 $(MAKE) --no-print-directory interop-store

interop-goldens: ## let Apache write the sample directories of test/compat anew
	$(MAKE) --no-print-directory interop-store INTEROP_FLAGS='-run TestGoldens' INTEROP_ARGS=-regenerate

$(INTEROP_JAVA)/target/%/classpath: $(INTEROP_SOURCES)
	cd $(INTEROP_JAVA) && $(INTEROP_MVN) -P $* package
	@touch $@

FRAMES_JAVA := test/interop/frames
FRAMES_SOURCES := $(FRAMES_JAVA)/pom.xml $(wildcard $(FRAMES_JAVA)/src/main/java/*/*.java)
FRAMES_CLASSPATHS := $(FRAMES_JAVA)/target/frames49/classpath $(FRAMES_JAVA)/target/frames53/classpath

.PHONY: interop-frames interop-frames-goldens

interop-frames: ## let the classes of the Java client 4.9 and 5.3 decode our frames (needs Java and Maven)
	@if command -v java >/dev/null && command -v javac >/dev/null && command -v mvn >/dev/null; then \
		$(MAKE) --no-print-directory $(FRAMES_CLASSPATHS) && \
		echo go test -tags interop -count=1 -timeout 5m -run TestFrames ./test/interop && \
		go test -tags interop -count=1 -timeout 5m -run TestFrames ./test/interop; \
	else \
		echo "************************************************************************"; \
		echo "* interop-frames: SKIPPED. No JDK with Maven on PATH, so NOTHING was     "; \
		echo "* decoded by the Java client. Install a JDK (11 or later) and Maven.     "; \
		echo "************************************************************************"; \
	fi

interop-frames-goldens: $(FRAMES_CLASSPATHS) ## let the Java client write the sample frames of test/compat anew
	java -cp $(FRAMES_JAVA)/target/frames49/classes:$$(cat $(FRAMES_JAVA)/target/frames49/classpath) frames.Main encode > test/compat/testdata/wire/client-4.9.8.jsonl
	java -cp $(FRAMES_JAVA)/target/frames53/classes:$$(cat $(FRAMES_JAVA)/target/frames53/classpath) frames.Main encode > test/compat/testdata/wire/client-5.3.3.jsonl

$(FRAMES_JAVA)/target/%/classpath: $(FRAMES_SOURCES)
	cd $(FRAMES_JAVA) && $(INTEROP_MVN) -P $* package
	@touch $@
