# make run    sets everything up and runs a scenario; ends by naming the report and the figures
# make test   sets everything up and passes every test that this machine can run
# make slurm  installs SLURM, for the tests of the cluster (Debian, as root; .ci/run calls it)
# make bench  compares PPO with TRL 1.12's and measures the rest, into results/bench (about an hour)
# make resume goes on after Snakemake was killed on a cluster while its jobs ran
# make results-docs  writes what a run says into the manual (SCENARIO: embedded, ensembles, imdb_small,
#             regimes, theory)
# make clean  removes all results
#
# Another scenario:  make run SCENARIO=imdb ARGS="--config data_root=FOLDER"
# On a cluster:      make resume ARGS="--cancel --configfile scenarios/imdb.yaml"
# A part of the tests: make test TESTS="tests/test_ppo.py -n 0"
# With a cache:      make run SNAKEMAKE_OUTPUT_CACHE=FOLDER
# Another Python:    make test PYTHON=python3.12
# GPT-2's size too:  make bench BENCH="--only steps --sizes 12x768"

SHELL := /bin/bash
SCENARIO ?= embedded
ARGS ?=
TESTS ?=
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Without an NVIDIA driver torch comes from its CPU index, which saves some gigabytes.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)

BIN := .venv/bin
# Python compiles what it imports, a tenth of what is installed, when it is first imported.
INSTALL := python -m pip --disable-pip-version-check install --no-compile
PIP := $(BIN)/$(INSTALL) -c envs/constraints.txt
TORCH := torch $(if $(TORCH_INDEX),--retries 0 --extra-index-url $(TORCH_INDEX))
# The benchmark's environment has the last TRL with PPO; all other versions are the project's.
BENCH_BIN := .venv-bench/bin
BENCH_PIP := $(BENCH_BIN)/$(INSTALL) -c .venv-bench/constraints.txt
BENCH ?=
CACHE := $(if $(SNAKEMAKE_OUTPUT_CACHE),--cache)
OVERLAY := $(if $(filter-out embedded,$(SCENARIO)),--configfile scenarios/$(SCENARIO).yaml)
RESULTS := results/$(SCENARIO)
# What Snakemake itself would answer with a traceback.
CHECK = $(BIN)/python -m prudent.workflow.configfiles $(OVERLAY) $(ARGS)
# The environment's packages alone are seen.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test bench resume setup slurm lint report rulegraph config-docs error-rates results-docs clean

run: setup
	@$(CHECK)
	$(BIN)/snakemake --cores all $(CACHE) $(OVERLAY) $(ARGS)
	@$(MAKE) --no-print-directory report
	@echo
	@echo "The report:  $(RESULTS)/report.html"
	@echo "The figures:"
	@ls $(RESULTS)/figures/*.png | sed 's/^/  /'

test: lint
	@# More at once than two cores carry: the tests of the cluster mostly wait.
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=15 $(TESTS)

bench: setup .venv-bench/.installed
	$(BENCH_BIN)/python tests/bench/trl_equality.py
	$(BENCH_BIN)/python tests/bench/run.py $(BENCH)
	$(BIN)/python tests/bench/learns.py

# Waits for the jobs that were left, or with --cancel in ARGS ends them; see the script.
resume: setup
	@$(CHECK)
	$(BIN)/python profiles/slurm/resume.py $(OVERLAY) $(ARGS)

setup: .venv/.installed

# A SLURM for the tests to start, on Debian as root; elsewhere those tests are skipped.
slurm:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v slurmctld >/dev/null; then \
		echo "Installing SLURM for the tests"; \
		export DEBIAN_FRONTEND=noninteractive; \
		install="apt-get install -qq -y --no-install-recommends slurm-wlm munge"; \
		$$install >/dev/null 2>&1 || { apt-get update -qq && $$install >/dev/null; } \
			|| echo "It cannot be installed; the tests that need it are skipped"; \
	fi

.venv/.installed: pyproject.toml envs/constraints.txt
	@test -n "$(PYTHON)" || { echo "Prudent needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) -e ".[workflow,test,adapters]"
	@touch $@

.venv-bench/.installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -m venv .venv-bench
	sed 's/^trl==.*/trl==1.12.0/' envs/constraints.txt > .venv-bench/constraints.txt
	$(BENCH_PIP) $(TORCH)
	$(BENCH_PIP) trl pydantic matplotlib pandas pyarrow pyyaml scipy
	$(BENCH_PIP) --no-deps -e .
	@touch $@

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

report: setup
	$(BIN)/snakemake $(OVERLAY) $(ARGS) --report $(RESULTS)/report.html

# The manual's picture of the rules; needs graphviz.
rulegraph: setup
	$(BIN)/snakemake --rulegraph | sed 's/margin=0\]/margin=0.1, nodesep=0.18, ranksep=0.32]/' \
		| dot -Tpng -Gdpi=80 -o scenarios/pictures/rulegraph.png

# The manual's table of the configuration.
config-docs: setup
	$(BIN)/python -m prudent.workflow.config_docs

# How often the statistics are wrong, into docs/statistics.md.
error-rates: setup
	$(BIN)/python tests/bench/error_rates.py

# What the default run says, after `make run`, into the manual.
results-docs: setup
	$(BIN)/python tests/bench/results_docs.py $(SCENARIO)

clean:
	rm -rf results checkpoints
