# Everything is installed into .venv in this checkout. Files named .venv/.installed-* remember what has been done, so
# that a second run starts at once. pip's own configuration (index, proxy, certificates) is honoured.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

WORKLOAD ?=
PEERS ?=
UPGRADE ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test soak lint types bench curves report lock clean programs

help: ## List the commands.
	@grep -E '^[a-z]+:.* ## ' Makefile | sed -E 's/^([a-z]+):.* ## (.*)/  make \1\t\2/' | expand -t 16

demo: $(VENV)/.installed-run ## Start a server, deploy examples/shop to it and go shopping over HTTP.
	@$(BIN)/python examples/shop/tour.py

# Their hundreds of servers, hosts and backends start faster from compiled code, wherever Python is told to keep none.
test soak: export PYTHONDONTWRITEBYTECODE :=

test: programs lint types ## Run everything that has to pass: style, types, layers, all tests.
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal || { \
		echo "What failed beside other tests is run once more, alone. What passes then does not bear load: mend it."; \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

soak: programs ## Run the tests that take minutes: kills and faults again and again, all peers of the benchmarks.
	$(BIN)/python -m pytest -m soak

# Looked for each time, because packages come and go without make.
programs: $(VENV)/.installed-test $(VENV)/.installed-bench
	@$(BIN)/python -m bench.provision wrk chromium chromedriver $(if $(APIARY_TEST_POSTGRES),,postgresql)

lint: $(VENV)/.installed-test ## Check style, formatting and layers.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.installed-test ## Check types, strictly.
	$(BIN)/mypy

bench: $(VENV)/.installed-bench ## Measure Apiary and its peers side by side (half an hour); WORKLOAD= and PEERS= choose.
	@$(BIN)/python -m bench $(if $(WORKLOAD),--workload $(WORKLOAD)) $(if $(PEERS),--peers $(PEERS))

curves: $(VENV)/.installed-bench ## Measure how it grows: clients, data, log, steps, sleepers, cores, apps (half an hour).
	@$(BIN)/python -m bench.scaling

report: $(VENV)/.installed-bench ## Write docs/benchmarks.md and the table of README.md from what was measured last.
	@$(BIN)/python -m bench.report

# The files depend on each other in this order, so that a package has one version in all of them.
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet $(if $(UPGRADE),--upgrade) \
	--generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-options \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

lock: $(VENV)/.installed-test ## Pin what pyproject.toml asks for in requirements/; UPGRADE=1 takes the newest versions.
	$(LOCK) --output-file requirements/run.txt pyproject.toml
	$(LOCK) --output-file requirements/build.txt --only-build-deps --build-deps-for editable \
		--constraint requirements/run.txt pyproject.toml
	$(LOCK) --output-file requirements/test.txt --extra test \
		--constraint requirements/run.txt --constraint requirements/build.txt pyproject.toml
	$(LOCK) --output-file requirements/bench.txt --extra bench \
		--constraint requirements/test.txt pyproject.toml
	for peer in requirements/peers/*.in; do $(LOCK) --output-file $${peer%.in}.txt $$peer || exit 1; done

clean: ## Remove .venv, caches and built packages; databases stay.
	rm -rf $(VENV) dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(wildcard src tests examples bench) -name __pycache__ -type d -prune -exec rm -rf {} +

# An existing .venv that can be used is used. Debian's python3 cannot make one before python3-venv is installed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>/dev/null || echo "not there"); \
		echo "Apiary needs Python 3.11 or newer, and $(PYTHON) is $$found." >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python3.%d-venv" % sys.version_info[1])'); \
		if [ "$$(id -u)" = 0 ]; then root="env"; else root="sudo -n"; fi; \
		install="$$root DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$package"; \
		echo "$(PYTHON) cannot make virtual environments yet: installing $$package"; \
		{ $$install || { $$root apt-get update && $$install; }; } >$(VENV).log 2>&1 && rm $(VENV).log || { \
		cat $(VENV).log >&2; rm -f $(VENV).log; \
		echo "Python's venv module is missing and could not be installed." >&2; \
		echo "As root, run: apt-get install $$package" >&2; \
		exit 1; }; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed-run: $(VENV)/.made pyproject.toml requirements/run.txt requirements/build.txt
	@echo "Installing Apiary and what it needs into $(VENV)"
	@$(PIP_INSTALL) --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-run requirements/test.txt
	@echo "Installing the tools of the tests into $(VENV)"
	@$(PIP_INSTALL) --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-run requirements/bench.txt
	@echo "Installing the peers of the benchmarks into $(VENV)"
	@$(PIP_INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@
