# `make run` and `make test` do all their set-up in .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
TASKS := blick_squares dax_spirals wug_spirals zot_eightwise fep_eightwise tove_squares

.PHONY: run test test-slow lint format tasks smoke card bench clean

run: $(INSTALLED) data/pocket/task.json
	$(BIN)/jt-run jointtuner_pocket

# one thread: the tests' tensors are so small that two would only wait for each other
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: $(INSTALLED) data/pocket/task.json data/leaky/task.json tasks
	$(BIN)/python tests/smoke.py

card: $(INSTALLED)
	$(BIN)/jt-pocket card

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

data/pocket/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/pocket

data/leaky/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/leaky --tier leaky

tasks: $(TASKS:%=data/%/task.json)

$(TASKS:%=data/%/task.json): data/%/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/$* --subject $(firstword $(subst _, ,$*)) --motion $(lastword $(subst _, ,$*))

# torch first, and pinned: an unpinned one brings gigabytes of CUDA to a machine without a GPU
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
