# `make demo` and `make test` work on a fresh clone; `make help` lists the rest.

PYTHON ?= python3
PY := .venv/bin/python
# Tests wait for processes more than they compute: twice as many as there are cores. At most 8, as a
# container may show more cores than it gets.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
TEST_PROCESSES ?= $(shell if [ $(CORES) -gt 4 ]; then echo 8; else echo $$((2 * $(CORES))); fi)

# An active virtual environment is somebody else's: everything here runs in .venv.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help venv neighbours demo demo-gap-fill quick test test-all test-part nightly weekly durations model simulate fuzz proof forgeries writes mutants canary test-compose pin-images matrix least chaos compiled bench stacks guard lint format types layers schema schema-check lock lock-check check dist wheel audit docs screenshots report clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | column -t -s @ 2>/dev/null || \
	 sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' Makefile

venv: ## make .venv and install the locked versions (uv where it is installed, else pip)
	@scripts/venv

neighbours: venv ## install other people's plugins and frameworks, which tests run beside
	@scripts/neighbours

demo: venv ## plan 60 jobs, run them on a private stack, verify every receipt
	$(PY) -m pytest --manifest-plan=system_test:mixed --manifest-plan-run

# A folder of its own, made anew each time: the batch is bought once, and the demo can be run again.
DEMO := .manifest/demo
demo-gap-fill: export GAP_FILL_DATABASE_URL = sqlite:///$(CURDIR)/$(DEMO)/movie_bible.sqlite3
demo-gap-fill: export TEXT_MODEL = offline
demo-gap-fill: venv ## load films, plan and fill their gaps with the offline model, verify, find no gap
	rm -rf $(DEMO)
	$(PY) -m workflows.gap_fill.corpus load sample
	$(PY) -m pytest --manifest-plan=gap_fill --manifest=$(DEMO)/gap_fill.jsonl -o manifest_dir=$(DEMO)
	$(PY) -m pytest --manifest=$(DEMO)/gap_fill.jsonl -o manifest_dir=$(DEMO)
	$(PY) -m pytest --manifest-plan=gap_fill --manifest-plan-run -o manifest_dir=$(DEMO)
	$(PY) -m workflows.gap_fill.corpus stats

quick: venv ## rules, types, layers and the tests of what was changed, in a minute (SINCE=ref: since that commit)
	@$(PY) -m tests.quick $(if $(SINCE),--since $(SINCE))

# Tests write a module twice within a second, and Python tells cached ones apart by second and size.
test test-all test-part chaos: export PYTHONDONTWRITEBYTECODE = 1
# The launcher ends all that the tests have started when they end, or within five seconds of Ctrl-C.
RING = $(PY) -m tests.launcher -n $(TEST_PROCESSES) --dist worksteal --durations=10 --durations-min=1
test: venv compiled ## ring 1, before each push; tests without their server are skipped, except with CI=true
	$(RING) --ring=1 $(ARGS)

test-all: venv neighbours compiled ## rings 1 and 2, before a change of what judges lands, and each night
	$(RING) $(ARGS)

test-part: venv neighbours compiled ## a part of ring 2 (PART=K/N: the K-th of N)
	$(RING) --ring=2 --part=$(or $(PART),0/20) $(ARGS)

nightly: venv ## what runs for hours each night: chaos, model, simulation, hostile bytes, every write, the matrix
	$(MAKE) chaos
	$(MAKE) model
	$(MAKE) simulate SECONDS=1800
	$(MAKE) fuzz SECONDS=1800
	$(MAKE) writes
	$(MAKE) matrix

weekly: venv ## what runs each week: mutants, containers, batches of a million entries
	$(MAKE) mutants
	$(MAKE) test-compose
	$(MAKE) bench

durations: export PYTHONDONTWRITEBYTECODE = 1
durations: venv neighbours compiled ## what every test costs, by folder and file (WRITE=before: into tests/README.md); see build/durations
	rm -rf build/durations
	-$(PY) -m tests.launcher -p tests.durations -n $(TEST_PROCESSES) --dist worksteal $(ARGS)
	$(PY) -m tests.durations $(if $(WRITE),--write $(WRITE))

chaos: venv compiled ## every fault at 25 random moments (ROUNDS=n WRITE=1: into the docs; FAULT='name' SEED=n: one); see build/chaos.md
	mkdir -p build
	MANIFEST_CHAOS_ROUNDS=$(or $(ROUNDS),25) MANIFEST_CHAOS_REPORT=build/chaos.md \
	 MANIFEST_CHAOS_SEED=$(or $(SEED),1) MANIFEST_CHAOS_FAULT='$(FAULT)' \
	 $(PY) -m tests.launcher -n $(TEST_PROCESSES) --dist worksteal tests/chaos$(if $(FAULT),/test_faults.py)
	$(if $(WRITE),$(PY) -m tests.chaos)

fuzz: venv ## hostile bytes for all that reads other people's (SECONDS=3600, TARGET=manifest, SEED=n; ARGS=--write); see build/fuzz
	$(PY) -m tests.fuzz --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(TARGET) $(ARGS)

model: venv ## explore the model of the promises whole, and each broken rule (needs spin and gcc); see build/model
	$(PY) -m tests.model $(ARGS)

# The same seed plays the same programs: sets of names are in the same order then.
simulate: export PYTHONHASHSEED = 0
simulate: venv ## kill pytest anywhere in a simulated world, at random (SECONDS=60, SEED=n); see build/simulation.json
	$(PY) -m tests.simulation --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

forgeries: venv ## try 54 kinds of forged reports, without and with signatures, and put the table into the docs
	$(PY) -m tests.forgeries

writes: venv ## have each write of a short run fail, then go on with it (needs gcc; ARGS=--in-turn: each in one way); see build/writes
	$(PY) -m tests.writes $(ARGS)

mutants: venv ## each small change to the code that judges must turn a test red (MODULE=run.schedule: one)
	$(PY) -m tests.mutants $(MODULE) $(ARGS)

canary: venv ## plant secrets in a session and look for them in all that it leaves, prints and starts
	$(PY) -m tests.canary

proof: venv ## put together what holds each promise, by the tables of the pages; nothing is run
	$(PY) -m tests.proof $(ARGS)

test-compose: venv ## build and start compose.yaml for real (needs Docker, or root on Debian); some minutes
	$(PY) -m pytest tests/compose

pin-images: ## pin the images that a registry gives by their digests, in .env (needs Docker)
	$(PYTHON) -m scripts.pin_images

matrix: venv ## the lowest versions, each minor of Celery, each Python (ARGS: as nox takes them)
	MANIFEST_MATRIX_PROCESSES=$(TEST_PROCESSES) $(PY) scripts/matrix.py $(ARGS)

least: venv ## the lowest versions on the lowest Python that is here, with the suite that each change is tried with
	MANIFEST_MATRIX_PROCESSES=$(TEST_PROCESSES) $(PY) scripts/matrix.py --least

# Hundreds of processes of the tests import what is compiled here, and each process of a run the tests as
# pytest rewrites them, which takes it longer than to import them. A few files are not worth a collection.
compiled: venv
	@$(PY) -m compileall -q pytest_manifest tasks workflows tests
	@if [ ! -e build/compiled ] || [ "$$(find tests -name '*.py' -newer build/compiled | wc -l)" -gt 20 ]; then \
	 echo "Compiling the tests"; \
	 env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest --collect-only -q >/dev/null; mkdir -p build; touch build/compiled; fi

bench: venv ## measure everything side by side; the page is docs/evidence/benchmarks.md
	$(PY) -m benchmarks $(BENCH)

stacks: venv neighbours ## run every cell of brokers, stores and pools; the page is docs/evidence/stacks.md
	$(PY) -m tests.stacks $(if $(CELLS),--only $(CELLS))

guard: venv ## does an entry cost more work than it did? (counted, not timed)
	$(PY) -m benchmarks.guard

lint: venv ## ruff's rules and format
	$(PY) -m ruff check
	$(PY) -m ruff format --check

format: venv ## let ruff format and fix
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

types: venv ## mypy --strict
	$(PY) -m mypy

layers: venv ## who may import whom (import-linter)
	.venv/bin/lint-imports --no-logo --no-cache

schema: venv ## write the JSON Schemas of the file formats
	$(PY) -m scripts.schemas

schema-check: venv ## are the committed JSON Schemas current?
	$(PY) -m scripts.schemas --check

lock: venv ## lock the dependencies anew (make lock UPGRADE=1: the newest versions)
	$(PY) scripts/lock.py $(if $(UPGRADE),--upgrade)

lock-check: venv ## are the locks current?
	$(PY) scripts/lock.py --check

check: lint types layers schema-check test ## what a change must pass before it is pushed

dist: venv ## build the wheel and the sdist into dist/
	rm -rf dist
	$(PY) -m build --outdir dist .

wheel: venv ## check what make dist has built, in an environment of its own
	$(PY) .ci/check_wheel.py dist

audit: venv ## dependencies, code, workflows, what is vendored (ARGS=--offline: asking nobody)
	$(PY) -m scripts.audit $(ARGS)

docs: venv ## build the site of the documents (build/site); a warning or a broken link is an error
	$(PY) -m scripts.docs_site

screenshots: venv ## make the pictures of the documents anew (docs/images); needs chromium, and npm for Allure
	$(PY) -m scripts.screenshots $(PICTURES)

report: ## build the HTML of allure-results with Allure 3 (ALLURE_RESULTS=folder; SINGLE=1: one file)
	@ALLURE_SINGLE=$(SINGLE) scripts/report

clean: ## remove what was built and cached, and .venv; runs and manifests stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
