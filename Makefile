# make run and make test do all the set-up themselves. The plain commands stand in README.md.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.ready-run
DEV_READY := $(VENV)/.ready-dev

.DEFAULT_GOAL := help
.PHONY: help run test browser check format docs bench gemma minilm models clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: $(RUN_READY) ## set up what is missing, start Headway and print its address (ARGS="--port N")
	@exec $(BIN)/python -m backend up $(ARGS)

# One thread each, and many wait for processes of their own: three run beside each other on two cores. What times or
# weighs has the machine to itself.
test: $(DEV_READY) browser ## every test, those in a browser included (with ARGS only what they name)
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -m "not alone and not real" -n 3 --dist worksteal
	$(BIN)/python -m pytest -m "real and not alone" -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m alone
else
	$(BIN)/python -m pytest $(ARGS)
endif

check: $(DEV_READY) ## format, lint, types, import floors, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m backend.checks.floors
	$(BIN)/python -m backend.checks.docs

format: $(DEV_READY) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(RUN_READY) ## write the generated parts of README.md again
	$(BIN)/python -m backend.checks.docs --write

bench: $(DEV_READY) browser ## every benchmark, one after the other; fails when one falls short
	@failed=0; for script in benchmarks/[a-z]*.py; do \
		echo "== $$script"; PYTHONPATH=. $(BIN)/python "$$script" || failed=1; \
	done; exit $$failed

gemma: $(RUN_READY) ## fetch Gemma 3 270M, a real model, after its terms are accepted
	@exec $(BIN)/python -m backend gemma $(ARGS)

minilm: $(RUN_READY) ## fetch MiniLM, a sentence encoder (Apache License 2.0)
	@exec $(BIN)/python -m backend minilm

models: $(RUN_READY) ## train the shipped models again (hours; the one of experts a day without a GPU)
	$(BIN)/python -m backend.storyteller.train storyteller
	$(BIN)/python -m backend.storyteller.train storyteller-draft
	$(BIN)/python -m backend.storyteller.train storyteller-moe --device auto --workers 4

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Headway needs Python 3.11 or later as $(PYTHON): install it, or name another one with make PYTHON=..."; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python's venv module is incomplete here. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(RUN_READY): requirements.txt | $(BIN)/python
	@echo "Installing what requirements.txt lists; the first time takes some minutes."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

$(DEV_READY): requirements-dev.txt requirements.txt | $(BIN)/python
	@echo "Installing what requirements-dev.txt lists; the first time takes some minutes."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements-dev.txt
	@touch $@ $(RUN_READY)

# The tests find Chromium or Chrome by themselves; where there is none and it may be installed, it is. The tests say
# loudly when they had no browser, and fail for it when CI is set.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null 2>&1 && exit 0; done; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "No Chromium: installing Debian's."; \
			{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } \
				>/dev/null 2>&1 || echo "Chromium could not be installed."; \
		else \
			echo "No Chromium and no right to install it: apt install chromium"; \
		fi
