# What a bare Debian machine with cargo needs is installed by the first target that needs it (as root, or through sudo).

SHELL := /bin/sh
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin
CARGO ?= cargo
INSTALL := sh tests/services/debian.sh
# Where cargo puts things; the tests and binaries find their neighbours there.
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: quickstart build test chaos types evolution kafka upsert fuzz bench lint services-up services-down tools

quickstart: tools
	$(CARGO) build --release --quiet --workspace
	$(TARGET)/release/quickstart

# The debug build has failpoints, for the tests; a release build refuses them.
build: tools
	$(CARGO) build --workspace --features failpoints

# Everything: unit tests, conformance, end to end. Always the whole workspace: cargo would build the dependencies again
# for another selection of packages, since their features differ.
test: build
	$(INSTALL) initdb:postgresql valgrind:valgrind ensurepip:python3-venv \
	    go:golang javac:default-jdk-headless mvn:maven
	rm -f $(TARGET)/skipped.txt
	$(CARGO) test --workspace --features failpoints
	@if [ -s $(TARGET)/skipped.txt ]; then \
	    echo "$$(wc -l < $(TARGET)/skipped.txt) tests were skipped:"; cat $(TARGET)/skipped.txt; fi

# Every failpoint with everything, in about ten minutes; CHAOS="commit.sent abort" runs the cases with these words.
# With MINUTES=20 SEED=1 a storm instead: what happens follows from the seed, and each change has to arrive once, or to be what the table holds.
SEED ?= 1
chaos: build
	$(INSTALL) initdb:postgresql ensurepip:python3-venv javac:default-jdk-headless mvn:maven
	$(TARGET)/debug/chaos $(if $(MINUTES),--storm $(MINUTES) $(SEED),$(CHAOS))

# Random tables that are altered at random, for so many seconds; `make test` has twenty of them.
SECONDS ?= 900
types: build
	$(INSTALL) initdb:postgresql ensurepip:python3-venv
	PHILOTES_TYPES_SECONDS=$(SECONDS) $(CARGO) test --workspace --features failpoints --test end_to_end -- altered::

# Columns that come, become wider, are renamed and go, rows that stream meanwhile, and kills of the host.
EVOLUTION ?= 50 200000 5
evolution: build
	$(INSTALL) initdb:postgresql ensurepip:python3-venv
	PHILOTES_EVOLUTION="$(EVOLUTION)" $(CARGO) test --workspace --features failpoints --test end_to_end -- under_fire::

# So many messages from Kafka into one table, and into a table for each of so many topics, with so many kills of the host.
MESSAGES ?= 5000000
TOPICS ?= 100
KILLS ?= 20
kafka: build
	$(INSTALL) ensurepip:python3-venv javac:default-jdk-headless mvn:maven
	PHILOTES_KAFKA="$(MESSAGES) $(TOPICS) $(KILLS)" $(CARGO) test --workspace --features failpoints --test end_to_end -- \
	    --test-threads 1 kafka::exactly_once

# A table that is kept equal to its source: so many keys, changes, kills of the host and compactions by Spark.
UPSERT ?= 10000 1000000 20 20
upsert: build
	$(INSTALL) initdb:postgresql ensurepip:python3-venv javac:default-jdk-headless mvn:maven
	PHILOTES_UPSERT="$(UPSERT)" $(CARGO) test --workspace --features failpoints --test end_to_end -- \
	    --test-threads 1 upsert::workload

# Strangers' bytes against every parser, each target for so many seconds, two at a time; FUZZ="avro kafka" runs these. `make test` has
# a second of each.
fuzz: tools
	sh tests/fuzz/run.sh $(SECONDS) $(FUZZ)

lint: tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features failpoints -- -D warnings

bench: tools
	$(CARGO) build --release --quiet --workspace
	$(TARGET)/release/bench $(BENCH)

# PostgreSQL, MinIO, an Iceberg REST catalog and Kafka to work with; prints the environment that connectors/*.yaml read.
services-up: build
	@$(TARGET)/debug/services up

services-down:
	@[ ! -x $(TARGET)/debug/services ] || $(TARGET)/debug/services down

# The linker of .cargo/config.toml, and what librdkafka and its OpenSSL are built with (pod2man stands for the whole of Perl).
tools:
	@$(INSTALL) clang:clang mold:mold gcc:gcc g++:g++ make:make pod2man:perl
