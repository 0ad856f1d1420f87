# make run    sets everything up and runs a scenario; ends by naming the report and the figures
# make test   sets everything up and passes every test
# make clean  removes all results
#
# Another scenario:  make run SCENARIO=imdb ARGS="--config data_root=FOLDER"
# Another Python:    make test PYTHON=python3.12

SHELL := /bin/bash
SCENARIO ?= embedded
ARGS ?=
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Without an NVIDIA driver torch comes from its CPU index, which saves some gigabytes.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c envs/constraints.txt
OVERLAY := $(if $(filter-out embedded,$(SCENARIO)),--configfile scenarios/$(SCENARIO).yaml)
RESULTS := results/$(SCENARIO)
# The environment's packages alone are seen.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH

.PHONY: run test setup lint report rulegraph config-table clean

run: setup
	$(BIN)/snakemake --cores all $(OVERLAY) $(ARGS)
	@$(MAKE) --no-print-directory report
	@echo
	@echo "The report:  $(RESULTS)/report.html"
	@echo "The figures:"
	@ls $(RESULTS)/figures/*.png | sed 's/^/  /'

test: lint
	$(BIN)/python -m pytest

setup: .venv/.installed

.venv/.installed: pyproject.toml envs/constraints.txt
	@test -n "$(PYTHON)" || { echo "Prudent needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) torch $(if $(TORCH_INDEX),--retries 0 --extra-index-url $(TORCH_INDEX))
	$(PIP) -e ".[test]"
	@touch $@

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

report: setup
	$(BIN)/snakemake $(OVERLAY) $(ARGS) --report $(RESULTS)/report.html

# The README's picture of the rules; needs graphviz.
rulegraph: setup
	$(BIN)/snakemake --rulegraph | sed 's/margin=0\]/margin=0.1, nodesep=0.18, ranksep=0.32]/' \
		| dot -Tpng -Gdpi=80 -o scenarios/pictures/rulegraph.png

# The README's table of the configuration.
config-table: setup
	$(BIN)/python -m prudent.config

clean:
	rm -rf results checkpoints
