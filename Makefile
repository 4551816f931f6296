PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: sample sample/dvc.yaml test test-all lint schema experiments lock

sample: .venv/installed  ## the study in miniature, on drawn images
	cd sample && python -m transfer.cluster.dvc repro  # as `dvc repro`, which takes longer
	@cat sample/metrics/tables.md

# One text for both pipelines, but for the code: an experiment holds a copy of what a stage depends on
# inside the DVC repository, and would put copies of stages/ and transfer/ in place of the links.
sample/dvc.yaml: dvc.yaml  ## the sample's pipeline, which depends on each file of the code
	{ sed '/^      - stages$$/,$$d' $<; find stages transfer -type f ! -name '.*' ! -name '*.pyc' \
		| LC_ALL=C sort | sed 's|^|      - ../|'; sed '1,/^      - transfer$$/d' $<; } > $@

test: .venv/installed  ## in minutes
	python -m pytest

test-all: .venv/installed  ## as before a release: kills, whole clusters, every documented command
	FUZZ=100 python -m pytest -m ""

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy

schema: .venv/installed  ## params.schema.json: what an editor knows of params.yaml
	python -m transfer.schema

# Of all that DVC knows: what was changed, and the accuracy of the setting recommended then.
DROP = (measure|rows|setting|trained)\..*|.*(json|yaml)$$|(data|metrics)/.*|stages|transfer|Created|State|Executor

experiments: .venv/installed  ## what was tried by `dvc exp run`; of the sample with IN=sample
	@dvc --cd $(or $(IN),.) exp show --only-changed --hide-workspace --drop '$(DROP)'

lock:  ## pin the newest versions that pyproject.toml allows
	uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--no-annotate --custom-compile-command "make lock" --output-file requirements.txt
	uv pip compile --quiet pyproject.toml --extra dev --extra ray --universal --python-version 3.11 \
		--constraints requirements.txt --no-annotate --no-header --output-file requirements-ray.txt

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@
