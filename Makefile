# `make` lists the targets.

GOLANGCI_VERSION := v2.15.0
GOLANGCI := bin/golangci-lint-$(GOLANGCI_VERSION)
FUZZTIME ?= 30s

# Modules of their own, for the sake of their dependencies.
OTHER_MODULES := test/sqljoin test/console bench/peers
MODULES := . $(OTHER_MODULES) bench/peers/dtmserver

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Drive the order-close flow and verify it; BROKER=rocketmq on a real RocketMQ
	bin/rocketflow demo $(if $(BROKER),--broker=$(BROKER))

.PHONY: dev
dev: build ## Run PostgreSQL and a broker until Ctrl-C; .dev keeps the tables (BROKER=rocketmq: and the messages)
	bin/rocketflow dev --dir .dev $(if $(BROKER),--broker=$(BROKER))

.PHONY: test
test: build ## Run all tests on the embedded broker, and again on a real RocketMQ where Java and Maven are
	bin/rocketflow dev --no-fsync -- .ci/test
	.ci/real

.PHONY: test-race
test-race: build ## Only the part of the tests that the race detector watches
	bin/rocketflow dev --no-fsync -- .ci/test race

.PHONY: test-client
test-client: build ## Only the part of the tests that uses the RocketMQ client, which trips the race detector
	bin/rocketflow dev --no-fsync -- .ci/test client

.PHONY: test-isolation
test-isolation: build ## Only the tests of outbox, handlers, saga and timeout, with stricter isolation levels as the default
	bin/rocketflow dev --no-fsync -- .ci/isolation

.PHONY: test-postgres
test-postgres: build ## Only the tests of outbox, handlers, saga, timeout and migrations, on PostgreSQL VERSION= (14 to 18), fetched once
	.ci/postgres $(VERSION)

.PHONY: test-real
test-real: build ## All tests that use the client, on a real RocketMQ; ROCKETMQ= is its version (4.9.7, 5.3.3, 5.4.0 or 5.5.0)
	bin/rocketflow dev --no-fsync --broker=rocketmq $(if $(ROCKETMQ),--rocketmq-version=$(ROCKETMQ)) -- .ci/test real-all

.PHONY: test-real-own
test-real-own: build ## All tests of the driver with its own transport, on a real RocketMQ; ROCKETMQ= is its version
	bin/rocketflow dev --no-fsync --broker=rocketmq $(if $(ROCKETMQ),--rocketmq-version=$(ROCKETMQ)) -- .ci/test real-own

.PHONY: test-clusters
test-clusters: build ## Only the tests of RocketMQ clusters whose servers die; ROCKETMQ= is their version (5.5.0), KILLS= how often, RUN= selects
	ROCKETFLOW_CLUSTERS=1 ROCKETMQ=$(ROCKETMQ) KILLS=$(KILLS) bin/rocketflow dev --no-fsync -- \
		go test -count=1 -timeout 90m -v -run '$(or $(RUN),^Test)' ./test/clusters

.PHONY: test-orderclose
test-orderclose: build ## Only the random schedules of the order-close flow, more of them; SCHEDULES= is how many (3000)
	bin/rocketflow dev --no-fsync -- go test -count=1 -timeout 60m -run '^TestSchedules$$' ./test/orderclose -schedules $(or $(SCHEDULES),3000)

.PHONY: bench
bench: build ## Run the benchmarks beside their peers, on a real RocketMQ; BENCH=-short for half a minute
	go vet -C bench/peers ./...
	bin/rocketflow dev --broker=rocketmq -- go run -C bench/peers . $(BENCH)

.PHONY: outage
outage: build ## Kill a real RocketMQ under load and draw the throughput to docs/outage.svg
	bin/rocketflow dev -- go run ./bench -outage docs/outage.svg

.PHONY: chaos
chaos: ## Inject faults by seeded schedules for DURATION (30s) and check the promises; SEED=, SCHEDULES=, WORKERS=, FAULTS=, BROKER=rocketmq, TRANSPORT=client-go|mixed
	@go build -o bin/chaos ./test/chaos
	@bin/chaos -duration $(or $(DURATION),30s) $(if $(SEED),-seed $(SEED)) $(if $(SCHEDULES),-schedules $(SCHEDULES)) \
		$(if $(WORKERS),-workers $(WORKERS)) $(if $(FAULTS),-faults $(FAULTS)) $(if $(BROKER),-broker $(BROKER)) $(if $(TRANSPORT),-transport $(TRANSPORT))

.PHONY: fuzz
fuzz: ## Fuzz each decoder for FUZZTIME (30s)
	.ci/fuzz $(FUZZTIME)

.PHONY: schemathesis
schemathesis: build ## Test the examples' HTTP interfaces against their OpenAPI documents; fetches schemathesis
	bin/rocketflow dev --no-fsync -- .ci/schemathesis

.PHONY: kubernetes
kubernetes: ## Check deploy/kubernetes against the schemas of Kubernetes; fetches kubernetes-validate
	.ci/kubernetes

.PHONY: alerts
alerts: build ## Check and test the alert rules of deploy/prometheus, also on a real service; fetches promtool
	bin/rocketflow dev --no-fsync -- .ci/alerts

.PHONY: lint
lint: $(GOLANGCI) ## Check format, go.mod files, vet, layers and style
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	@for module in $(MODULES); do go mod tidy -C $$module -diff >/dev/null || { echo "run go mod tidy in $$module"; exit 1; }; done
	go vet ./...
	@for module in $(OTHER_MODULES); do go vet -C $$module ./... || exit 1; done
	go test -count=1 ./test/layers
	$(GOLANGCI) run --allow-parallel-runners

$(GOLANGCI):
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv bin/golangci-lint $@

.PHONY: build
build: ## Build the rocketflow command into bin/
	go build -o bin/rocketflow ./cmd/rocketflow

.PHONY: clean
clean: ## Remove what was built, and the data of `make dev`
	rm -rf bin .dev
