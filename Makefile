# `make sweep` and `make test` set up what is missing by themselves.
LAUNCHER ?= local
ARGS ?=
PYTHON ?= python3
PY := .venv/bin/python
LOWEST := .venv/lowest
# As it was typed, for a script to take apart: neither make nor a shell reads its $, quotes, brackets or <.
export HARNESS_ARGS = $(value ARGS)
ifeq ($(origin OUTPUTS),command line)
$(error OUTPUTS is no variable of this Makefile: give ARGS="output_directory=... name=..." instead)
endif

.PHONY: sweep tune plan fit report compare claim claims forecast status sync view test lint lock lowest bench gpu-check reproduce calibrate clean
.DEFAULT_GOAL := sweep

# SWEEP, an entry of conf/sweep or a folder of outputs, and LAUNCHER are read from the environment that make passes on.
sweep tune claims: .venv/installed $(if $(filter slurm submitit_%,$(LAUNCHER)),.venv/slurm)
	@$(PY) scripts/make.py $@

plan fit report compare claim forecast status sync view clean: .venv/installed
	@$(PY) scripts/make.py $@

# A third worker computes while others wait for servers and clusters. Each begins with a third of the files, of which
# others take over what is left, so that what a file sets up is seldom set up twice. Bytecode is kept, whatever the
# environment says: hundreds of processes would compile each file anew. Threads of OpenBLAS wait for each other, busily,
# for many times what small matrices take one.
test: export PYTHONDONTWRITEBYTECODE =
test: export OPENBLAS_NUM_THREADS = 1
test: .venv/tested
	@$(PY) -m pytest -n 3 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

lint: .venv/tested
	@$(PY) -m ruff check . && $(PY) -m mypy

# The versions that pip chooses now; torch's own CUDA packages stay out, so that it serves with and without a GPU.
lock: .venv/tested
	@$(PY) -m pip install --quiet --dry-run --ignore-installed --report .lock.json '.[dev,slurm]' && \
	$(PY) -c 'import json; found = [p["metadata"] for p in json.load(open(".lock.json"))["install"]]; \
	skip = ("scaling-harness", "nvidia", "cuda", "triton"); print(*sorted((p["name"] + "==" + p["version"].split("+")[0] \
	for p in found if not p["name"].startswith(skip)), key=str.lower), sep="\n")' > requirements.lock; rm -f .lock.json

# The smoke sweep, its fit and its report with the lowest versions that pyproject.toml allows; torch's come with CUDA.
lowest: .venv/installed
	@rm -rf $(LOWEST) && $(PY) -m venv $(LOWEST) && $(PY) -c 'import importlib.metadata, re; \
	print(*(re.sub(r">=([^,]*).*", r"==\1", line) for line in importlib.metadata.requires("scaling-harness") \
	if "extra ==" not in line), sep="\n")' > $(LOWEST)/requirements.txt && cat $(LOWEST)/requirements.txt && \
	$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check -r $(LOWEST)/requirements.txt --editable . && \
	$(LOWEST)/bin/python scripts/train.py -m +sweep=smoke output_directory=$(LOWEST) data.store_directory=$(LOWEST)/tokens && \
	$(LOWEST)/bin/python scripts/fit.py runs=$(LOWEST)/smoke && $(LOWEST)/bin/python scripts/report.py runs=$(LOWEST)/smoke && \
	rm -rf $(LOWEST)

bench: .venv/tested
	@for benchmark in $(filter-out benchmarks/gpu_check.py,$(wildcard benchmarks/*.py)); do OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) $$benchmark || exit 1; done

# Whether this GPU box trains as docs/machines.md says; writes docs/gpu.json.
gpu-check: .venv/installed
	@$(PY) benchmarks/gpu_check.py

reproduce: .venv/tested
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) tests/laws/reproduce.py && \
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) tests/laws/three_laws.py

calibrate: .venv/tested
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) tests/laws/calibration.py

# Made again where the interpreter is gone, as after an update of the system.
ifeq ($(wildcard $(PY)),)
.PHONY: .venv/installed .venv/slurm .venv/tested
endif

.venv/installed: pyproject.toml
	@$(PYTHON) scripts/set_up.py $@ .

.venv/slurm: pyproject.toml
	@$(PYTHON) scripts/set_up.py $@ '.[slurm]'

.venv/tested: pyproject.toml
	@$(PYTHON) scripts/set_up.py $@ '.[dev,slurm]'
