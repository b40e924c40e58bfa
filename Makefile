# Each target makes what it needs: a bare machine with Python 3.11 and make is enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS_VENV := .venv-protos
PROXIES := .proxies
PROTO_FILES := $(wildcard protos/marquee/v1/*.proto)
GENERATED := clients/python

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: $(VENV)/ready ## Train on the sample, publish, serve and recommend (ARGS="--data …" for real ratings)
	$(BIN)/marquee demo $(ARGS)

.PHONY: test
test: lint types unit ## Pass lint, types and tests

.PHONY: lint
lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

.PHONY: types
types: $(VENV)/ready
	$(BIN)/mypy

# As many as there are cores that may be used.
TEST_PROCESSES ?= $(shell nproc 2>/dev/null || echo 2)
# What ARGS chooses may all be of the other part: pytest calls that 5.
MAY_BE_EMPTY = $(if $(ARGS),|| test $$? -eq 5)

.PHONY: unit
unit: $(VENV)/ready $(PROTOS_VENV)/ready $(PROXIES)/ready
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile -m "not alone" $(ARGS) $(MAY_BE_EMPTY)
	$(BIN)/pytest -m alone $(ARGS) $(MAY_BE_EMPTY)

.PHONY: bench
bench: $(VENV)/ready ## Measure serving against its targets (QUICK=1; DATA=… for real ratings)
	PYTHONPATH=tests $(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: bench-quality
bench-quality: $(VENV)/ready ## Compare rankings with public libraries (ARGS="--data … --split temporal")
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench_quality $(ARGS)

.PHONY: bench-training
bench-training: $(VENV)/ready ## Compare the fitting of neighbourhoods with public libraries (ARGS="--data …")
	PYTHONPATH=tests OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench_training $(ARGS)

.PHONY: protos
protos: $(PROTOS_VENV)/ready ## Generate the protobuf code
	$(PROTOS_VENV)/bin/python -m grpc_tools.protoc -Iprotos \
		--python_out=$(GENERATED) --grpc_python_out=$(GENERATED) \
		--plugin=protoc-gen-mypy=$(PROTOS_VENV)/bin/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(PROTOS_VENV)/bin/protoc-gen-mypy_grpc \
		--mypy_out=quiet:$(GENERATED) --mypy_grpc_out=quiet:$(GENERATED) \
		$(PROTO_FILES)

.PHONY: clean
clean: ## Remove what the targets made
	rm -rf $(VENV) $(PROTOS_VENV) $(PROXIES) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# pip reads the pins from the constraints file; an editable install needs no path settings.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The code generator has an environment of its own: its output must load on the oldest protobuf
# runtime that the project supports.
$(PROTOS_VENV)/ready: Makefile
	$(PYTHON) -m venv $(PROTOS_VENV)
	$(PROTOS_VENV)/bin/python -m pip install --quiet grpcio-tools==1.76.0 mypy-protobuf==5.1.0
	touch $@

# nginx and HAProxy, which the contract tests put before the gateway.
$(PROXIES)/ready: tests/contract/fetch_proxies.sh
	tests/contract/fetch_proxies.sh $(PROXIES)
	touch $@
