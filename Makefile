# `make demo` and `make test` set up everything they need in .venv; PYTHON=... chooses another interpreter.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test thorough check docs slow test-jax test-torch clean

demo: $(READY)  ## fine-tune the embedded network on real handwritten digits
	$(BIN)/python -m tlkit.recipes.finetune --config recipes/finetune/digits_letternet.yaml

test: $(READY)  ## the default test suite
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

thorough: $(READY)  ## what the default suite leaves out to stay under five minutes
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "thorough and not slow and not real"

check: $(READY)  ## what a reviewer would say: lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict docs/start/digits.py  # a user's script: what the library gives has types

docs: $(VENV)/.docs  ## the documentation site, in docs/_build/html; its notebooks run, and a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -E docs docs/_build/html

slow: $(READY)  ## every Keras Applications network; TLKIT_DATA=folder adds the tests on real photos
	$(BIN)/python -m pytest -q -m "slow or real"

test-jax:  ## the default suite on JAX, without TensorFlow
	$(MAKE) VENV=.venv-jax EXTRA=[jax] .venv-jax/.ready
	.venv-jax/bin/python -m pip uninstall -q -y tensorflow tensorboard
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -q

test-torch:  ## the default suite on PyTorch, without TensorFlow
	$(MAKE) VENV=.venv-torch EXTRA=[torch] .venv-torch/.ready
	.venv-torch/bin/python -m pip uninstall -q -y tensorflow tensorboard
	KERAS_BACKEND=torch .venv-torch/bin/python -m pytest -q

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "tlkit needs Python 3.11, 3.12 or 3.13 with venv; found none. Install one, or make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".$(EXTRA)" --group dev
	@touch $@

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt --group docs
	@touch $@

clean:
	rm -rf .venv .venv-jax .venv-torch build dist docs/_build docs/reference/commands docs/reference/packages
