# `make run` and `make test` do all their set-up in .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
TESTED := .venv/tested
TASKS := blick_squares dax_spirals wug_spirals zot_eightwise fep_eightwise tove_squares
LEAKY_TASKS := $(foreach subject,wug dax blick,$(foreach motion,eightwise spirals squares,$(subject)_$(motion)))

.PHONY: run test test-slow lint format tasks leaky-tasks smoke card bench clean

run: $(INSTALLED) data/pocket/task.json
	$(BIN)/jt-run jointtuner_pocket

# a process for each core with one thread each: the tests' tensors are so small that two threads
# would only wait for each other
test: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

test-slow: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(TESTED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(TESTED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: $(TESTED) data/pocket/task.json data/leaky/task.json tasks leaky-tasks
	$(BIN)/python tests/smoke.py

card: $(INSTALLED)
	$(BIN)/jt-pocket card

bench: $(TESTED)
	$(BIN)/python -m benchmarks --out benchmarks/results

data/pocket/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/pocket

data/leaky/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/leaky --tier leaky

tasks: $(TASKS:%=data/%/task.json)

$(TASKS:%=data/%/task.json): data/%/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/$* --subject $(firstword $(subst _, ,$*)) --motion $(lastword $(subst _, ,$*))

leaky-tasks: $(LEAKY_TASKS:%=data/leaky_tasks/%/task.json)

$(LEAKY_TASKS:%=data/leaky_tasks/%/task.json): data/leaky_tasks/%/task.json: | $(INSTALLED)
	$(BIN)/jt-pocket draw data/leaky_tasks/$* --tier leaky --subject $(firstword $(subst _, ,$*)) --motion $(lastword $(subst _, ,$*))

# torch first, and pinned: an unpinned one brings gigabytes of CUDA to a machine without a GPU
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(TESTED): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
