# Everything a clone needs: Python 3.11 with pip, and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
ROS := .venv-ros
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := envs agents configs launch
SOURCES := mtrl $(ROOMS)
PYTEST_ARGS ?=
# Tests start hundreds of processes, which would compile torch again each: let the first one keep its bytecode.
unexport PYTHONDONTWRITEBYTECODE
# Processes that tests are spread over; more than four only compete for the same clusters and files.
PYTEST_WORKERS ?= $(shell n=$$(nproc); echo $$((n > 4 ? 4 : n)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench interop results clean install

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1   \2/p' $(MAKEFILE_LIST)

demo: $(STAMP) ## train the quick start, or continue it where it stopped
	$(BIN)/mtrl train experiment=quickstart --resume auto
	$(BIN)/mtrl train experiment=quickstart_mixed --resume auto

test: check ## check, then run the tests (PYTEST_ARGS="-m slow" for the slow ones)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

check: $(STAMP) .typing/mtrl ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .typing/mtrl

# commits.py needs two commits to compare, interop.py another environment, faults.py hours, realtime_success.py a run
bench: $(STAMP) ## run every benchmark and print its table
	@set -e; for script in $(filter-out %/commits.py %/interop.py %/faults.py %/realtime_success.py,$(sort $(shell grep -l -- '"--json"' benchmarks/*.py))); do \
		echo "== $$script"; $(BIN)/python $$script; done

interop: $(STAMP) $(ROS)/.installed ## exchange messages with a real ROS 2 node (JSON=FILE)
	$(BIN)/python benchmarks/interop.py --ros $(ROS)/bin/python $(if $(JSON),--json $(JSON))

# ROS 2's wheels start every interpreter of their environment with their own libraries: never in $(VENV).
$(ROS)/.installed: benchmarks/interop.txt | $(STAMP)
	rm -rf $(ROS)
	$(BIN)/python -m venv $(ROS)
	$(ROS)/bin/pip install -qq --no-compile --retries 2 --timeout 30 -r $< || { rm -rf $(ROS); \
		echo "ROS 2's packages could not be installed from PyPI; make interop needs the network once" >&2; exit 1; }
	@touch $@

results: $(STAMP) ## run the studies whose results are missing
	$(BIN)/python -m benchmarks.studies

clean: ## remove the virtual environment, caches and build outputs; runs/ stays
	rm -rf $(VENV) $(ROS) .typing build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(STAMP)

# constraints.txt is a complete lock: nothing is left to resolve, and `pip check` proves it complete. A new pip and
# --no-compile halve the time this takes. Dependencies stay on: a torch built for GPUs brings CUDA's libraries, which
# a lock made on a machine without a GPU does not name.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "mtrl needs Python 3.11; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --no-compile --upgrade -c constraints.txt pip
	$(BIN)/pip install -qq --no-compile -r constraints.txt
	$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	@touch $@

# Links that place the top-level folders where they are imported from; mypy reads nothing else.
.typing/mtrl: Makefile $(wildcard mtrl/*) pyproject.toml
	@rm -rf .typing && mkdir -p .typing/mtrl
	@for name in $(filter-out __pycache__,$(notdir $(wildcard mtrl/*))); do ln -s ../../mtrl/$$name .typing/mtrl/$$name; done
	@for name in $(ROOMS); do ln -s ../../$$name .typing/mtrl/$$name; done
