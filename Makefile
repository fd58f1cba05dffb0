# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
DEMO_OUT ?= demo
LAVIS_OUT ?= build/lavis

.PHONY: demo test lavis-test lint install install-dev bench clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.installed

demo: install
	$(BIN)/p2p-real demo --out $(DEMO_OUT)

# one thread a process: on a shared machine two threads in each are slower than one
test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope

# makes the environment of --captioner lavis by pip, 200 MB, and captions by LAVIS's own class
lavis-test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.lavis_check $(LAVIS_OUT)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy captioning inversion edit p2p_real

bench: install
	$(BIN)/p2p-real bench speed --out runs/speed

clean:
	rm -rf $(VENV) demo build *.egg-info
