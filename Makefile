# Everything here sets itself up: `make demo` and `make test` work in a fresh clone.
# PYTHON: any interpreter >= 3.11.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# What the container image has beyond the plain install.
IMAGE_EXTRAS := redis otlp
PIN := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
  --no-annotate

.PHONY: demo test test-engines test-services test-image bench check lint types docs manifests lock clean help

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo          simulated engine, real proxy, live numbers in this terminal
demo: $(STAMP)
	@$(BIN)/inferwatch demo

## make test          unit, property, end-to-end and chaos tests (no engine needed)
# On asyncio's own loop: a handle that a failing test leaves open can keep uvloop's close() waiting for ever. The
# end-to-end and chaos tests run the real processes, and those run on uvloop.
test: $(STAMP)
	INFERWATCH_TEST_LOOP=asyncio $(BIN)/python -m pytest -n 2 -q --ignore=tests/engines --ignore=tests/services --ignore=tests/deploy

## make test-engines  real vLLM, Transformers and llama.cpp on the CPU: exact counts, bytes (15 minutes the first time)
test-engines: $(STAMP)
	tests/engines/run.sh

## make test-services alerts, dashboards, shared budgets, live page, top: real Prometheus, Redis, Chromium, tmux
test-services: $(STAMP)
	scripts/need-debian prometheus prometheus-alertmanager redis-server chromium curl tmux
	INFERWATCH_TEST_LOOP=asyncio $(BIN)/python -m pytest -n 2 -q tests/services

## make test-image    image, compose stack, Helm chart, systemd unit, scale-out (needs root; about 8 minutes the first time)
test-image: $(STAMP)
	tests/deploy/run.sh

## make bench         CPU per event, latency, memory: direct, nginx, vllm-router, LiteLLM, Inferwatch
bench: $(STAMP)
	bench/run.sh

## make check         format, lint, types, import contracts, generated pages
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m inferwatch_collectors.docs --check
	$(BIN)/python -m alerts.src.build --check
	$(BIN)/python -m dashboards.src.build --check
	$(BIN)/python -m deploy.kubernetes.build --check

## make docs          write the generated reference pages
docs: $(STAMP)
	$(BIN)/python -m inferwatch_collectors.docs
	$(BIN)/python -m alerts.src.build
	$(BIN)/python -m dashboards.src.build
	$(BIN)/python -m deploy.kubernetes.build

## make manifests     write deploy/kubernetes from the Helm chart (HELM=program)
HELM ?= .venv-deploy/tools/helm
manifests: $(STAMP)
	$(BIN)/python -m deploy.kubernetes.render --helm $(HELM)

## make lock          pin the dependencies anew
lock: $(STAMP)
	$(PIN) --group dev pyproject.toml -o requirements/dev.txt
	$(PIN) $(IMAGE_EXTRAS:%=--extra %) pyproject.toml -o requirements/image.txt
	$(PIN) --group deploy -o requirements/deploy.txt
	sed -n 's/^requires = \[\(.*\)\]$$/\1/p' pyproject.toml | tr -d '" ' | tr , '\n' | $(PIN) - -o requirements/build.txt

$(STAMP): pyproject.toml requirements/dev.txt scripts/bootstrap
	@scripts/bootstrap "$(PYTHON)" "$(VENV)"
	@touch $@

clean:
	rm -rf $(VENV) .venv-* build dist
