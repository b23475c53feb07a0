# Everything a person or CI runs. `make run` and `make test` install what is missing where they can, and say in one
# line what is missing where they cannot.

CARGO ?= cargo
# For whatever tests: the same features each time, or every target would compile the dependencies anew.
BINARIES = $(CARGO) build --quiet --workspace --all-features --bins

.PHONY: run test test-server test-sdk ops-test test-drills drills infra image audit faults lint bench coverage schemathesis engines

run: engines ## the whole product on this machine, until Ctrl-C
	@$(CARGO) build --quiet --package api --bin coditect-license
	@exec target/debug/coditect-license dev

test: test-server test-sdk ops-test test-drills ## every test, on real engines that are started and ended here

test-server: engines ## the service's tests
	@$(BINARIES)
	target/debug/engines run --fast -- $(CARGO) test --workspace --all-features

test-sdk: engines ## the Python SDK's tests, against the real server
	@scripts/install-python.sh
	@$(BINARIES)
	sdk/python/run-tests.sh

ops-test: ## image, manifests, alerts, dashboards, infra: each with its own validator
	@scripts/install-python.sh
	@scripts/ops/test.sh

test-drills: engines ## the drills that take less than a minute together
	@scripts/install-python.sh
	@$(BINARIES)
	@drills/run.sh --short

drills: engines ## history, restore, loss of Redis, fail-over, rotation, rollout, revocation, every alert: DRILLS=failover runs one
	@scripts/install-python.sh
	@$(BINARIES)
	@drills/run.sh $(DRILLS)

infra: ## format and `tofu validate` of every module (needs OpenTofu, and the registry of its providers)
	tofu fmt -check -recursive -diff infra
	@scripts/ops/validate.sh

image: ## builds the image and runs it as the cluster does: as nobody, on a file system that it cannot write (needs Docker)
	docker build --tag coditect-license:local .
	docker run --rm --read-only --cap-drop=ALL coditect-license:local --version

audit: ## advisories and licences of what we build upon
	@scripts/install-python.sh
	@scripts/ops/audit.sh

FAULTS_AT_A_TIME ?= 3

faults: engines ## every fault, with real processes; prints a table of what became of each (about 10 minutes)
	@$(BINARIES)
	@target/debug/faults --forget
	@failed=0; $(CARGO) test --workspace --all-features --test suite -- --include-ignored --test-threads $(FAULTS_AT_A_TIME) || failed=1; \
	  target/debug/faults && exit $$failed

lint: ## format, clippy, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --all-features --quiet

bench: engines ## load generator against a release build; prints a table, asserts nothing
	$(CARGO) build --release --package api --package loadtests --bin coditect-license --bin loadtests
	target/release/loadtests bench $(BENCH_ARGS)
	@scripts/install-python.sh
	sdk/python/bench.py

schemathesis: engines ## the API against its own OpenAPI document, as each role: CASES=100 tries more
	@$(CARGO) build --quiet --package api --bin coditect-license
	@scripts/schemathesis.sh $(CASES)

coverage: engines ## line coverage of the workspace (needs llvm-cov of rustc's LLVM version)
	@scripts/coverage.sh

engines:
	@scripts/install-engines.sh
