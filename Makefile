# `make demo` and `make test` work on a fresh machine with Python >= 3.11, git and make: each makes the environment
# first. All targets can be run again at any time.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE = $$(find ops examples -name build -prune -o -name '*.cpp' -print -o -name '*.cu*' -print -o -name '*.h' -print)
PACKAGES := ops core $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
PROJECTS := $(addsuffix /pyproject.toml,$(PACKAGES))
EDITABLE := -e ./ops -e "./core[tensorboard,fast-eval,plots,export,openvino,video]" $(patsubst %,-e ./%,$(filter plugins/%,$(PACKAGES)))
DEV := pytest pytest-xdist hypothesis ruff clang-format mypy types-PyYAML setuptools wheel twine fastapi uvicorn playwright optuna sphinx furo myst-parser sphinx-copybutton
DEMO_DIR := runs/demo
SITE := site
CONSTRAINTS := constraints.txt
OLDEST := .venv-oldest
CACHES := .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Threads that spin while they wait make training many times slower when anything else wants a core.
export OMP_WAIT_POLICY ?= passive
SAMPLE := core/src/det_core/data/sample
VAL_IMAGES = $$($(BIN)/python -c 'import json; \
	[print("$(SAMPLE)/images/" + i["file_name"]) for i in json.load(open("$(SAMPLE)/instances_val.json"))["images"]]')

# The first Python that is new enough; `make PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)

.PHONY: help env demo test test-oldest gpu lint format docs wheels clean
.PHONY: dist kernels check-dist version changelog-preview changelog

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | \
		while IFS='|' read -r name text; do printf '%-25s %s\n' "$$name" "$$text"; done

env: $(STAMP)  ## make the environment .venv and install everything into it

$(STAMP): $(PROJECTS) $(CONSTRAINTS) Makefile
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: no Python >= 3.11 found (looked for python3, python3.14 ... python3.11);" \
			"install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ]; then \
		if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
			echo "error: $(PYTHON) lacks the venv module; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; fi; \
		echo "==> making the environment $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV); fi
	@echo "==> installing the packages and the tools into $(VENV) (torch is large: minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) $(EDITABLE) $(DEV)
	@touch $@

demo: $(STAMP)  ## train the demo recipe on the bundled sample, evaluate it and draw its predictions
	@echo "==> training the demo recipe of the plugin htc on the bundled sample, in $(DEMO_DIR)"
	@echo "    (a run that is there already goes on where it left off; remove the folder to train afresh)"
	@$(BIN)/det-core train --plugin htc --work-dir $(DEMO_DIR) --resume
	@echo "==> evaluating the best checkpoint of $(DEMO_DIR)"
	@$(BIN)/det-core test --checkpoint $(DEMO_DIR)
	@echo "==> analyzing where it is wrong, in $(DEMO_DIR)/analysis"
	@$(BIN)/det-core analyze --checkpoint $(DEMO_DIR)
	@echo "==> drawing its detections on the validation images into $(DEMO_DIR)/predictions"
	@$(BIN)/det-core predict --checkpoint $(DEMO_DIR) --out $(DEMO_DIR)/predictions --overwrite $(VAL_IMAGES)

lint: $(STAMP)  ## check style and types
	@echo "==> ruff check"
	@$(BIN)/ruff check .
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "==> clang-format"
	@$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	@echo "==> mypy"
	@$(BIN)/mypy

format: $(STAMP)  ## let ruff put the sources in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(NATIVE)

# One worker per core, each with one thread.
PYTEST = OMP_NUM_THREADS=1 $(1)/python -m pytest --numprocesses auto --dist worksteal

test: lint  ## check style and types, then run all tests
	@echo "==> pytest"
	@$(call PYTEST,$(BIN))

test-oldest: $(OLDEST)/constraints.txt  ## run all tests on the oldest torch supported, in an environment of its own
	@$(MAKE) --no-print-directory VENV=$(OLDEST) CONSTRAINTS=$< env
	@echo "==> pytest with $$($(OLDEST)/bin/python -c 'import torch, torchvision as v; \
		print("torch", torch.__version__, "and torchvision", v.__version__)')"
	@$(call PYTEST,$(OLDEST)/bin)

# The versions of constraints.txt, except torch and what old torch wants older.
$(OLDEST)/constraints.txt: constraints.txt Makefile
	@mkdir -p $(OLDEST)
	@{ echo 'torch==2.11.*'; echo 'torchvision==0.26.*'; echo 'setuptools>=77.0.3'; \
		sed -E '/^(torch|torchvision|setuptools)==/d' constraints.txt; } >$@

# Without a registry: packages that the machine lacks come from the folder WHEELS. PARTS: only these.
GPU_ENV := .venv-gpu
OUT ?= runs/gpu
MINUTES ?= 25
gpu:  ## build, test and measure all that needs an NVIDIA card, with the torch of PYTHON (DRY=1: small, on the CPU)
	@$(PYTHON) benchmarks/gpu.py --out "$(OUT)" --minutes $(MINUTES) --environment $(GPU_ENV) \
		$(if $(WHEELS),--wheels "$(WHEELS)") $(if $(PARTS),--only $(PARTS)) $(if $(DRY),--dry)

docs: $(STAMP)  ## build the documentation site; warnings are errors
	@echo "==> building the site from docs/ and the READMEs"
	@$(BIN)/python docs/make_site.py --out "$(SITE)"

wheels: $(STAMP)  ## build a wheel of every package into dist/
	@$(BIN)/python tools/build.py --wheels

dist: $(STAMP)  ## build source distributions and wheels of every package into dist/, and check them for an index
	@rm -rf dist
	@$(BIN)/python tools/build.py
	@$(BIN)/twine check --strict dist/*

kernels: $(STAMP)  ## compile the kernels into a wheel for this platform, in dist/ (DET_OPS_CUDA=on: CUDA kernels, too)
	@$(BIN)/python tools/build.py --kernels

# PYTHON: the Python to check, by default that of the environment. TORCH: download this version, such as 2.11.* or newest;
# without it, that of PYTHON is used. OPTIONS: see the file.
check-dist: $(STAMP)  ## install plugins from dist/ into a fresh environment of PYTHON, and train (TORCH=2.11.*: with this torch)
	@$(BIN)/python tools/check_dist.py $(if $(filter file,$(origin PYTHON)),,--python "$(PYTHON)") $(if $(TORCH),--torch "$(TORCH)") $(OPTIONS)

version:  ## show the version of all packages, or set it (VERSION=0.2.0)
	@$(PYTHON) tools/version.py $(VERSION)

changelog-preview:  ## print what the files in changes/ add to CHANGELOG.md
	@$(PYTHON) tools/changelog.py --preview

changelog:  ## add the files in changes/ to CHANGELOG.md as the section of the present version, and remove them
	@$(PYTHON) tools/changelog.py

# Only what the targets above made. A `build` folder or *.egg-info counts as made only where setuptools writes it: at the
# top of a package or in its src. The shell expands the names, since make splits names that have spaces.
clean:  ## remove environments, wheels, the site, builds, caches and runs/demo; other runs are kept
	rm -rf $(VENV) $(OLDEST) $(GPU_ENV) dist $(CACHES) "$(DEMO_DIR)" "$(SITE)"
	@rmdir runs 2>/dev/null || true
	@set -e; for environment in .venv*; do \
		if [ -f "$$environment/.installed" ]; then echo "rm -rf '$$environment'"; rm -rf "$$environment"; fi; done
	@set -e; for package in ops core kernels plugins/* examples/*; do \
		if [ ! -f "$$package/pyproject.toml" ] || [ -L "$$package" ]; then continue; fi; \
		echo "removing builds and caches in $$package"; \
		for name in build $(CACHES); do rm -rf "$$package/$$name"; done; \
		rm -rf "$$package"/*.egg-info "$$package"/src/*.egg-info; \
		find "$$package" -type d -name __pycache__ -prune -exec rm -rf {} +; done
	@set -e; for folder in tests benchmarks docs tools; do \
		if [ -d "$$folder" ]; then find "$$folder" -type d -name __pycache__ -prune -exec rm -rf {} +; fi; done
