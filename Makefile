# Needs Linux, Python >= 3.11 and make; installs everything else into .venv and .libraries.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
SETS   := .libraries

.DEFAULT_GOAL := help
.PHONY: help install models demo check unit-growth unit-rest test busy-test cgroup-test memory-test kernel-test lint ablation soak neighbours chaos growth-test quality peers cpython-test monitoring-test image-test console-test clients-test compose-test servers-test n8n-test manifests-test sbom coverage audit bench lock clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(VENV)/.package $(SETS)/.installed  ## Make .venv and .libraries: what the locks name, hashes checked, and this project

# On a terminal uv shows what it fetches.
QUIET := $(shell test -t 2 || echo --quiet)
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes
$(VENV)/.installed: requirements.lock requirements-installer.lock
	@[ ! -L $(VENV) ] || { echo "$(VENV) is a link, and older than requirements.lock. Run \`make install\` in the checkout that \
	  it belongs to; or remove the link, and run it here."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@echo "Installing $$(grep -c '==' requirements.lock) packages into $(VENV); then come libraries and models ..."
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "The venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PIP_INSTALL) --requirement requirements-installer.lock
	@$(PY) -m uv pip install $(QUIET) --compile-bytecode --python $(PY) --require-hashes --requirement requirements.lock \
	  || { echo "uv could not; pip tries, which has settings of its own (an index, a certificate) ..."; \
	       $(PIP_INSTALL) --requirement requirements.lock; }
	@touch $@

# This project itself, so that its version and the command `unityai-worker` are known there; its code stays where it is. `compat`
# is a plain path: the other way would have every interpreter import a finder at its start. A .venv that is a link belongs to
# another checkout, which it goes on to name, and which installs what is in it.
$(VENV)/.package: pyproject.toml sandbox/isolation/_prepared.c $(VENV)/.installed
	@[ -L $(VENV) ] || { $(PY) -m uv pip install --quiet --python $(PY) --no-deps --no-build-isolation \
	  --config-settings editable_mode=compat --editable . && touch $@; }

# What scripts and handlers may import. A .libraries that is a link belongs to another checkout: the command only looks at it.
$(SETS)/.installed: requirements-handlers.lock requirements-scripts.lock $(VENV)/.package
	@$(PY) -m engine libraries install
	@[ -L $(SETS) ] || touch $@

models: install  ## Download the models of ml_inference into models/, digests checked; quick when they are there
	@$(PY) -m engine models

demo: install models  ## Start the whole service on embedded servers, run real tasks end to end, stop it again
	@$(PY) -m engine demo

GROWTH := tests/unit/test_work_grows_with_length.py
check: $(VENV)/.package  ## What to run while you work, half a minute on two cores: lint, and the unit tests, which start nothing
	@$(MAKE) --no-print-directory --output-sync=target --jobs=2 unit-growth lint unit-rest

unit-growth: $(VENV)/.package
	$(PY) -m pytest -q $(GROWTH)

unit-rest: $(VENV)/.package
	$(PY) -m pytest -q tests/unit --ignore=$(GROWTH)

test: install models  ## Every test, then those that can depend on the user again as an unprivileged one
	@$(PY) -m tests.programs.suite

cgroup-test: install  ## The cgroup layer, as root on a kernel whose cgroup v2 has the memory controller
	@$(PY) -m tests.programs.cgroup_layer

memory-test: install  ## What results say of memory beside what the kernel counted, without the cgroup layer, as root
	@$(PY) -m tests.programs.memory_truth

kernel-test: install models  ## Check, tasks, AppArmor and attacks under Debian's 6.1 and 6.12 (root; apt-get install qemu-system-x86 …)
	@$(PY) -m tests.kernels

busy-test: install models  ## Every test once more, tier by tier, while something else keeps every core busy
	@$(PY) -m tests.programs.busy

lint: $(VENV)/.package  ## ruff, import-linter, mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/mypy

ablation: install  ## Take one layer away at a time and show which attacks then get through
	@$(PY) -m tests.programs.ablation

soak: install  ## 10,000 runs through one pool; afterwards nothing may be more than before
	@$(PY) -m tests.programs.soak

neighbours: install  ## What an innocent tenant feels of each known attack: latency without and with it, in turns
	@$(PY) -m tests.programs.neighbours

monitoring-test: install  ## Have promtool try alert rules, dashboard and metrics (apt-get install prometheus)
	@$(PY) -m tests.programs.monitoring

image-test: install models  ## Build the container image and try it under three seccomp profiles (root; apt-get install podman …)
	@$(PY) -m tests.image

manifests-test: install  ## Hold the Kubernetes manifests, KEDA's too, against their schemas from npm (Node.js 20 or later)
	@$(PY) -m tests.programs.manifests

compose-test: $(VENV)/.installed  ## Hold compose.yaml against podman-compose: no key may be dropped in silence
	@$(PY) -m tests.programs.compose

sbom: $(VENV)/.installed  ## Write sbom.cdx.json (CycloneDX): each Python package of the image, with its hashes
	@$(PY) -m tests.programs.sbom

n8n-test: install  ## Run the shipped workflows in n8n from npm (Node.js 20 or later)
	@$(PY) -m tests.programs.n8n

servers-test: install  ## Run the service on Debian's servers: PgBouncer, TLS, failover, mistakes (apt-get install postgresql pgbouncer redis-server)
	@$(PY) -m tests.servers

console-test: install  ## Go through the console in headless Chromium, with axe-core; keeps screenshots (apt-get install chromium)
	@$(PIP_INSTALL) --requirement requirements-console.lock
	@$(PY) -m tests.programs.console

clients-test: install  ## Have four generators make clients of the OpenAPI document, and use each (Node.js 20 or later)
	@$(PY) -m tests.programs.clients

peers: install  ## Hold what handlers read against peers, over some 500 real files fetched by name (npm; apt-get install imagemagick)
	@$(PY) -m tests.peers

cpython-test: install models  ## CPython's own tests in the service and by plain python: all that differs is in a table
	@$(PY) -m tests.programs.cpython_tests

chaos: install  ## Kill, stop, cut, hang, fill and garble every part for half an hour; no promise to a client may break
	@$(PY) -m tests.chaos --report tests/chaos/README.md

growth-test: install  ## 100,000 tasks, a day's sweeps and eight bodies of 64 MiB at once; afterwards nothing may have grown
	@$(PY) -m tests.growth --report tests/growth/README.md

quality: install models  ## Measure the models on labelled texts that others wrote; writes tests/quality/README.md
	@$(PY) -m tests.quality

coverage: install  ## Branch coverage of sandbox/, with what cannot be measured and why
	@$(PY) -m tests.programs.coverage_sandbox

audit: install  ## Hold the locks against the known vulnerabilities; says so where their list cannot be reached
	@$(PY) -m tests.programs.audit_lock

bench: install models  ## Measure, against plain python and bwrap in the same run; writes BENCHMARKS.md
	@$(PY) -m engine bench --report BENCHMARKS.md

# $(call COMPILE,WHAT,FILE): one lock, worked out from WHAT of pyproject.toml.
COMPILE = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	  --custom-compile-command "make lock" $(1) --output-file $(2)
lock: $(VENV)/.installed  ## Work the locks out from pyproject.toml, in the same versions: development, image, agents' door, handlers, scripts (UPGRADE=1)
	$(call COMPILE,pyproject.toml --extra dev --extra embedded --extra mcp --group handlers $(if $(UPGRADE),--upgrade),requirements.lock)
	$(call COMPILE,pyproject.toml --constraint requirements.lock,requirements-runtime.lock)
	$(call COMPILE,pyproject.toml --extra mcp --constraint requirements.lock,requirements-mcp.lock)
	$(call COMPILE,--group handlers --constraint requirements.lock,requirements-handlers.lock)
	$(call COMPILE,--group installer,requirements-installer.lock)
	$(call COMPILE,--group console --constraint requirements.lock,requirements-console.lock)
	$(call COMPILE,--group clients,requirements-clients.lock)
	$(call COMPILE,--group compose,requirements-compose.lock)
	$(call COMPILE,--group sbom,requirements-sbom.lock)
	$(call COMPILE,--group scripts --constraint requirements.lock $(if $(UPGRADE),--upgrade),requirements-scripts.lock)

clean:  ## Remove .venv, .libraries and everything that tools have left
	rm -rf $(VENV) $(SETS) .data .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
