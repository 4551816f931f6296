PYTHON ?= python3
# The active environment, if it has the packages; otherwise .venv, which is made here.
HAS := import importlib.metadata as m, re, sys; \
	[m.version(n) for n in re.findall("^([^ =]+)==[^ ]+$$", open("requirements.txt").read(), re.M)]; \
	print(sys.prefix)
ifeq ($(filter-out $(CURDIR)/.venv,$(shell python -c '$(HAS)' 2>/dev/null)),)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PACKAGES := .venv/installed
endif

.PHONY: sample sample/dvc.yaml test test-all lint schema experiments lock

sample: $(PACKAGES)  ## the study in miniature, on drawn images
	cd sample && python -m transfer.cluster.dvc repro  # as `dvc repro`, which takes longer
	@cat sample/metrics/tables.md

# One text for both pipelines, but for the code: an experiment holds a copy of what a stage depends on
# inside the DVC repository, and would put copies of stages/ and transfer/ in place of the links.
sample/dvc.yaml: dvc.yaml  ## the sample's pipeline, which depends on each file of the code
	{ sed '/^      - stages$$/,$$d' $<; find stages transfer -type f ! -name '.*' ! -name '*.pyc' \
		| LC_ALL=C sort | sed 's|^|      - ../|'; sed '1,/^      - transfer$$/d' $<; } > $@

test: $(PACKAGES)  ## in minutes
	python -m pytest

test-all: $(PACKAGES)  ## as before a release: kills, whole clusters, every documented command
	FUZZ=100 python -m pytest -m ""

lint: $(PACKAGES)
	ruff check .
	ruff format --check .
	mypy

schema: $(PACKAGES)  ## params.schema.json: what an editor knows of params.yaml
	python -m transfer.schema

# Of all that DVC knows: what was changed, and the accuracy of the setting recommended then.
DROP = (chosen_by|measure|rows|setting|trained)\..*|.*(json|yaml)$$|(data|metrics)/.*|stages|transfer|\.\./.*|Created|State|Executor

experiments: $(PACKAGES)  ## what was tried by `dvc exp run`; of the sample with IN=sample
	@dvc --cd $(or $(IN),.) exp show --only-changed --hide-workspace --drop '$(DROP)'

# One version of each package for every Python, or the study's numbers would depend on it.
COMPILE = uv pip compile --quiet pyproject.toml --extra dev --universal --fork-strategy fewest \
	--no-annotate --custom-compile-command "make lock"
# What torch asks for itself, unless it is a build for CPUs.
CUDA = $$(sed -nE 's/^(cuda-[^=]+|nvidia-[^=]+|triton)==.*/--no-emit-package \1/p' requirements-hashed.txt)

lock:  ## pin the newest versions that pyproject.toml allows
	$(COMPILE) --extra ray --upgrade --generate-hashes --output-file requirements-hashed.txt
	$(COMPILE) --constraints requirements-hashed.txt $(CUDA) --output-file requirements.txt
	$(COMPILE) --extra ray --constraints requirements-hashed.txt $(CUDA) --output-file requirements-ray.txt

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@
