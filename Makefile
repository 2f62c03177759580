# One command each: setup, demo, check, test, bench, gen. Heavy environments are built from lock files into the cache.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := check

PYTHON ?= python3
export RESIDENTKV_CACHE ?= $(HOME)/.cache/residentkv
VENV := .venv
BIN := $(VENV)/bin
digest = $(shell sha256sum $(1) | cut -c1-12)

CORE_STAMP := $(VENV)/.core-$(call digest,envs/core.lock)
VLLM_VENV := $(RESIDENTKV_CACHE)/venvs/vllm-$(call digest,envs/vllm.lock)
VLLM_STAMP := $(VLLM_VENV)/.complete
DOCS_VENV := $(RESIDENTKV_CACHE)/docs-$(call digest,envs/docs.lock)
DOCS_STAMP := $(DOCS_VENV)/.complete
export RESIDENTKV_VLLM_PYTHON := $(VLLM_VENV)/bin/python
BROWSER_STAMP := $(VENV)/.browser-$(call digest,envs/browser.lock)
SGLANG_VENV := $(RESIDENTKV_CACHE)/venvs/sglang-$(call digest,envs/sglang.lock)
SGLANG_STAMP := $(SGLANG_VENV)/.complete
export RESIDENTKV_SGLANG_PYTHON := $(SGLANG_VENV)/bin/python
DYNAMO_VENV := $(RESIDENTKV_CACHE)/venvs/dynamo-$(call digest,envs/dynamo.lock)
DYNAMO_STAMP := $(DYNAMO_VENV)/.complete
export RESIDENTKV_DYNAMO_PYTHON := $(DYNAMO_VENV)/bin/python
KVCR_VENV := $(RESIDENTKV_CACHE)/venvs/kvcr-$(call digest,envs/kvcr.lock)
KVCR_STAMP := $(KVCR_VENV)/.complete
export RESIDENTKV_KVCR_PYTHON := $(KVCR_VENV)/bin/python
PIP := -m pip --disable-pip-version-check -q install

.PHONY: setup demo check lint types fast live test bench bench-witness gen envs env-browser env-vllm env-sglang env-dynamo env-kvcr clean

setup: $(CORE_STAMP)

$(CORE_STAMP): envs/core.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python $(PIP) -r envs/core.lock
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	touch $@

# An environment in the cache is named after the digest of its lock file, so its stamp has no prerequisite: the lock
# file of every fresh clone is newer. Whoever builds it holds a lock and leaves the stamp last; one without is built anew.
define build_venv
mkdir -p $(dir $(@D))
flock $(@D).lock bash -euo pipefail -c 'test -e $@ && exit; rm -rf $(@D); $(PYTHON) -m venv $(@D); \
  $(@D)/bin/python $(PIP) --no-deps -r $(1); touch $@'
endef

$(VLLM_STAMP):
	$(call build_venv,envs/vllm.lock)

env-vllm: setup $(VLLM_STAMP)
	$(BIN)/residentkv witness --prepare

$(SGLANG_STAMP):
	$(call build_venv,envs/sglang.lock)

# It serves the model that env-vllm prepares.
env-sglang: env-vllm $(SGLANG_STAMP)

# What the browser tests drive: Debian's Chromium, and a driver in the core's venv that brings no browser of its own.
$(BROWSER_STAMP): envs/browser.lock $(CORE_STAMP)
	$(BIN)/python $(PIP) --no-deps -r envs/browser.lock
	touch $@

env-browser: setup $(BROWSER_STAMP)
	command -v chromium >/dev/null || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; }

$(DYNAMO_STAMP):
	$(call build_venv,envs/dynamo.lock)

# Dynamo's simulated workers read the tokenizer of the model that env-vllm prepares.
env-dynamo: env-vllm $(DYNAMO_STAMP)

$(KVCR_STAMP):
	$(call build_venv,envs/kvcr.lock)

env-kvcr: setup $(KVCR_STAMP)

envs: env-browser env-vllm env-sglang env-dynamo env-kvcr

demo: setup
	$(BIN)/residentkv demo

lint: setup
	$(BIN)/ruff format --check src tests bench docs/site
	$(BIN)/ruff check src tests bench docs/site

types: setup
	$(BIN)/mypy

fast: setup
	$(BIN)/python -m pytest -q -n 2 --ignore=tests/live

check: lint types fast

live: envs
	$(BIN)/python -m pytest -q tests/live

test: check live docs

# The site: every page of docs/, warnings are errors.
$(DOCS_STAMP):
	$(call build_venv,envs/docs.lock)

.PHONY: docs
docs: $(DOCS_STAMP)
	$(DOCS_VENV)/bin/sphinx-build -q -W -n --keep-going -c docs/site -b html . out/site

bench: setup
	$(BIN)/python -m bench
	$(BIN)/python -m bench.admission

# 30 repetitions of every scenario on a real vLLM; about 20 minutes with nothing else on two cores.
bench-witness: envs
	$(BIN)/residentkv witness --all --repeat 30 --out out/witness
	$(BIN)/python -m bench.witness out/witness

# --- Load and overhead on a real server. The load generator has an environment of its own: it is no part of the
# runtime, and must not share its packages.
.PHONY: env-load soak bench-vllm

LOAD_VENV := $(RESIDENTKV_CACHE)/venvs/load-$(call digest,envs/load.lock)
LOAD_STAMP := $(LOAD_VENV)/.complete
export RESIDENTKV_LOCUST_PYTHON := $(LOAD_VENV)/bin/python

$(LOAD_STAMP):
	$(call build_venv,envs/load.lock)

env-load: $(LOAD_STAMP)

envs: env-load

# Ten minutes of load. The live tests do the same for one minute.
soak: env-vllm env-load
	$(BIN)/python -m bench.load --duration 600 --out out/soak --command "make soak" --benchmarks BENCHMARKS.md

bench-vllm: env-vllm
	$(BIN)/python -m bench.overhead

# The commands of docs/server.md, run against the real server, and what they print.
.PHONY: transcript
transcript: envs
	$(BIN)/python -m tests.live.transcript

# Everything generated from the code; a test fails when the result differs from what is committed.
gen: setup
	$(BIN)/python -m residentkv.cli.gen

clean:
	rm -rf $(VENV) out build .mypy_cache .ruff_cache .pytest_cache .hypothesis
