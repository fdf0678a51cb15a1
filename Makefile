# Names for the real commands. Everything runs on a Debian machine that holds nothing but git and make.
.DEFAULT_GOAL := help
.PHONY: help bootstrap up down fleet fleet-watch fleet-down shell test lint unit molecule proof bench sanity collection docs images lock clean

# Ansible wants UTF-8, whatever the shell has; glibc of Debian 12 and newer holds this locale.
export LC_ALL := C.UTF-8
unexport LANGUAGE

SCENARIO ?=
HOST ?= toll-demo
python := .venv/bin/python

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

bootstrap: ## Install what this machine lacks: Debian packages, and .venv with the pinned tools
	@tools/bootstrap

up: bootstrap ## Provision the whole stack on a container host: https://toll.localhost:8443/
	@$(python) tools/demo.py up

down: ## Remove what `make up` made
	@python3 tools/demo.py down

fleet: bootstrap ## Provision a fleet of container hosts: balancers, web hosts, a database (inventory/fleet)
	@$(python) tools/fleet.py up

fleet-watch: ## Send requests through its balancers, and show who answers: http://127.0.0.1:8400/
	@$(python) tools/fleet.py watch

fleet-down: ## Remove what `make fleet` made
	@python3 tools/fleet.py down

shell: ## Open a shell on a host of `make up`, of `make fleet`, or of a scenario with KEEP=1: HOST=toll-demo
	@python3 testhosts/testhosts.py shell $(HOST)

test: bootstrap ## Run all that CI runs: lint, offline tests, the app's tests, Molecule; SCENARIO=nginx, JOBS=1
	@$(python) tools/run_tests.py $(addprefix molecule:,$(SCENARIO))

lint: bootstrap ## Check the source without running it
	@$(python) tools/run_tests.py lint

unit: bootstrap ## Run the offline tests and the application's
	@$(python) tools/run_tests.py unit app

molecule: bootstrap ## Run all Molecule scenarios, or SCENARIO=nginx alone; KEEP=1 keeps its hosts
	@$(python) tools/run_tests.py molecule$(addprefix :,$(SCENARIO))

proof: bootstrap ## Run the long tests and measurements, and write docs/proof/; ROUNDS=3
	@$(python) tests/proof/run_cost.py $(ROUNDS)
	@$(python) tests/proof/nginx_restart.py
	@$(python) tests/proof/nginx_checks.py
	@$(python) tests/proof/releases.py
	@$(python) tests/proof/faults.py
	@$(python) tests/proof/certificates.py --write
	@$(python) tests/proof/foreign.py
	@EVERY_SYSTEM=1 MONITORING_IMAGE=debian12 FIRST_SYSTEM=debian13 SECOND_SYSTEM=debian12 \
		$(python) tools/run_tests.py unit molecule
	@$(python) tests/proof/system_upgrade.py
	@$(python) tests/proof/app_performance.py $(if $(ROUNDS),--rounds $(ROUNDS)) --write
	@$(python) tests/proof/reading.py $(if $(ROUNDS),--rounds $(ROUNDS)) --write
	@$(python) tests/proof/cached_reads.py $(if $(ROUNDS),--rounds $(ROUNDS)) --write
	@cd app && TOLL_SCHEMATHESIS_EXAMPLES=300 ../$(python) -m pytest tests/api/test_api_schemathesis.py

bench: bootstrap ## Measure the old way, a tutorial's and this project: docs/comparison.md; ROUNDS=3
	@$(python) tests/bench/compare.py $(if $(ROUNDS),--rounds $(ROUNDS))

collection: bootstrap ## Pack the roles, playbooks and plugins as the collection wsgi.host
	@$(python) tools/collection.py build

sanity: bootstrap ## Check that collection with ansible-test sanity; takes two minutes
	@$(python) tools/collection.py sanity

docs: bootstrap ## Build the guides as a site that needs no network: .cache/site/index.html
	@$(python) tools/docs.py

images: bootstrap ## Rebuild the test hosts' images from today's packages
	@$(python) testhosts/testhosts.py image --fresh debian12 debian13 acme

lock: bootstrap ## Write the lock files again; UPGRADE=1 takes newer versions
	@tools/lock

clean: down fleet-down ## Remove the images, the caches and .venv too
	@python3 testhosts/testhosts.py clean
	@rm -rf .venv .cache .ansible
