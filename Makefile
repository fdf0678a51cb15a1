# Names for the real commands. Everything runs on a Debian machine that holds nothing but git and make.
.DEFAULT_GOAL := help
.PHONY: help bootstrap up down test lint unit molecule proof bench images lock clean

# Ansible wants UTF-8, whatever the shell has; glibc of Debian 12 and newer holds this locale.
export LC_ALL := C.UTF-8
unexport LANGUAGE

SCENARIO ?=
python := .venv/bin/python

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

bootstrap: ## Install what is missing on this machine: Debian packages, and .venv with the pinned tools
	@tools/bootstrap

up: bootstrap ## Bring the whole stack up on a container host: https://toll.localhost:8443/
	@$(python) tools/demo.py up

down: ## Remove what `make up` brought up
	@python3 tools/demo.py down

test: bootstrap ## Everything that CI runs: lint, offline tests, the app's tests, Molecule; JOBS=1
	@$(python) tools/run_tests.py

lint: bootstrap ## Everything that looks at the source only
	@$(python) tools/run_tests.py lint

unit: bootstrap ## The offline tests and the application's
	@$(python) tools/run_tests.py unit app

molecule: bootstrap ## All Molecule scenarios, or SCENARIO=name; KEEP=1 leaves its hosts
	@$(python) tools/run_tests.py molecule$(addprefix :,$(SCENARIO))

proof: bootstrap ## What is long: measurements and every fault, written to docs/proof/; ROUNDS=3
	@$(python) tests/proof/run_cost.py $(ROUNDS)
	@$(python) tests/proof/nginx_restart.py
	@$(python) tests/proof/nginx_checks.py
	@$(python) tests/proof/releases.py
	@$(python) tests/proof/certificates.py --write
	@$(python) tests/proof/foreign.py
	@EVERY_SYSTEM=1 MONITORING_IMAGE=debian12 FIRST_SYSTEM=debian13 SECOND_SYSTEM=debian12 \
		$(python) tools/run_tests.py unit molecule
	@$(python) tests/proof/system_upgrade.py
	@$(python) tests/proof/app_performance.py $(if $(ROUNDS),--rounds $(ROUNDS)) --write
	@$(python) tests/proof/reading.py $(if $(ROUNDS),--rounds $(ROUNDS)) --write
	@$(python) tests/proof/cached_reads.py $(if $(ROUNDS),--rounds $(ROUNDS)) --write
	@cd app && TOLL_SCHEMATHESIS_EXAMPLES=300 ../$(python) -m pytest tests/api/test_api_schemathesis.py

bench: bootstrap ## The old way, a tutorial's and this project measured: docs/comparison.md; ROUNDS=3
	@$(python) tests/bench/compare.py $(if $(ROUNDS),--rounds $(ROUNDS))

images: bootstrap ## Make the test hosts' images anew, from today's packages
	@$(python) testhosts/testhosts.py image --fresh debian12 debian13 acme

lock: bootstrap ## Write the lock files again; UPGRADE=1 moves to newer versions
	@tools/lock

clean: down ## Remove the images, the caches and .venv as well
	@python3 testhosts/testhosts.py clean
	@rm -rf .venv .cache .ansible
