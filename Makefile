# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `agentqueue up` and its workers start with.
STARTED := uvloop, agentqueue.cli.main, agentqueue_operator.local.run, agentqueue_worker.commands.worker, agentqueue_worker.process, agentqueue_worker.adapters.agents
# What the tests of agent frameworks start workers with.
FRAMEWORKS := agentqueue.integrations.langgraph, agentqueue.integrations.openai_agents, agentqueue.integrations.pydantic_ai, pydantic_ai.models.openai
# What its unit tests cover to the last branch: the pure part and what others rely on.
EXACT := */worker/src/*/domain/*,*/autoscaling/*,*/resources/*,*/controller/status/*,*/scaling/scale_in.py,*/scaling/worker_pods.py,*/scaling/crashed_workers.py,*/kubernetes/leader_election.py,*/local/fleet.py,*/local/restart_backoff.py,*/local/variables.py,*/agentqueue/keys.py,*/agentqueue/model/*,*/agentqueue/spec/*,*/service/environment.py,*/agentqueue/errors.py
# What docker-images builds.
IMAGES := agentqueue-operator:0.1.0 agentqueue-worker:0.1.0 agentqueue-travel:dev
STAMP := $(VENV)/.installed
KIND_KUBECONFIG := $(CURDIR)/$(VENV)/kind.kubeconfig
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup check quick format lint types imports generated drift unit test coverage test-versions test-cluster cluster-up cluster-down cluster-shell cluster-status \
  images docker-images kind-images push-images kind-up kind-down demo bench bench-full bench-publish costs bench-scaling bench-operator docs sbom constraints clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## Make the virtual environment, once.
$(STAMP): constraints.txt pyproject.toml operator/pyproject.toml worker/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --constraint constraints.txt --group dev --editable . --editable operator --editable worker
	@# uv leaves byte code to the first import: six workers that start at a time would compile it six times, and each
	@# time where Python may not write it.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import $(STARTED), $(FRAMEWORKS)'
	touch $@

check: lint types imports drift docs unit ## Check format, lint, types, imports, generated files and documentation; run the unit tests.

format: setup ## Format the code.
	ruff format .
	ruff check --fix .

lint: setup
	ruff format --check .
	ruff check .
	hadolint $$(git ls-files '*Dockerfile')

types: setup
	mypy
	basedpyright

imports: setup
	lint-imports

generated: setup ## Regenerate the generated files (CRD, references).
	python -m tools.generate

drift: setup
	python -m tools.generate --check

unit: setup
	coverage erase
	coverage run -m pytest --quiet --numprocesses auto tests/unit
	coverage combine --quiet
	coverage report --fail-under 100 --include '$(EXACT)'

# Most tests on real servers wait: more processes than cores keep the cores busy. Each process that runs tests on a real
# Kubernetes has a cluster of its own (some 2 GiB), so there are two.
test: unit ## Run every test that this machine can run.
	pytest --numprocesses 4 --dist worksteal --durations 40 tests/integration examples
	pytest --numprocesses 2 --dist worksteal --durations 40 tests/cluster tests/e2e

quick: setup ## Run the checks and tests of the inner loop: under two minutes on two cores.
	ruff format --check .
	ruff check .
	mypy
	basedpyright
	pytest --quiet --numprocesses auto tests/unit
	pytest --quiet --numprocesses 4 --dist worksteal -m "not slow and not second_server" tests/integration

test-versions: setup ## Run the library's tests on the lowest and the newest versions of what it depends on.
	python tools/versions.py

coverage: setup ## Run the tests that need no cluster with branch coverage, at least 90%; unit tests alone cover all of domain.
	coverage erase
	coverage run -m pytest --numprocesses 4 --dist worksteal tests/unit tests/integration examples
	coverage combine --quiet
	coverage report --fail-under 90

test-cluster: setup ## Run the tests on a real Kubernetes alone (Linux, root, Go; the first build takes minutes).
	pytest tests/cluster

# The test cluster by hand: tests use the one that is up. Its state folder is AGENTQUEUE_CLUSTER_DIR.
cluster-up: setup ## Start a real Kubernetes that stays, for tests and for you.
	@python -m tests.support.cluster up

cluster-down: setup ## End it and leave nothing of it.
	@python -m tests.support.cluster down

cluster-shell: setup ## A shell with kubectl and helm for it.
	@python -m tests.support.cluster shell

cluster-status: setup ## Show which of its parts answer.
	@python -m tests.support.cluster status

images: setup ## Build the images without Docker, the sample's too, and load them into the cluster that is up or that KUBECONFIG names.
	@python -m tests.support.cluster images

docker-images: ## Build the images by Docker, the sample's too.
	docker build --file operator/Dockerfile --tag agentqueue-operator:0.1.0 .
	docker build --file worker/Dockerfile --tag agentqueue-worker:0.1.0 .
	docker build --tag agentqueue-travel:dev examples/travel

kind-images: docker-images ## Build the images by Docker and load them into the cluster of kind-up.
	kind load docker-image --name agentqueue $(IMAGES)

push-images: docker-images ## Build the images by Docker and push them to REGISTRY, such as registry.example.com/team.
	@test -n "$(REGISTRY)" || { echo "name the registry: make push-images REGISTRY=registry.example.com/team" >&2; exit 1; }
	set -e; for image in $(IMAGES); do docker tag $$image $(REGISTRY)/$$image; docker push $(REGISTRY)/$$image; done

kind-up: setup ## Start a Kubernetes in Docker by kind; with KUBECONFIG set, the tests use it.
	@command -v kind >/dev/null || { echo "kind is not installed; without Docker, use make cluster-up" >&2; exit 1; }
	kind create cluster --config tests/cluster/kind.yaml --kubeconfig $(KIND_KUBECONFIG) --wait 2m
	@echo export KUBECONFIG=$(KIND_KUBECONFIG)

kind-down: ## End it.
	kind delete cluster --name agentqueue --kubeconfig $(KIND_KUBECONFIG)

demo: setup ## Run the travel example from end to end.
	python examples/travel/demo.py

# BASE=<git reference> adds AgentQueue of another commit as a side. BENCH=<options> passes more options on.
bench: setup ## Measure the main cases beside arq and BullMQ, in turns, as ratios: five minutes at most.
	uv pip install --python $(BIN)/python --quiet --constraint constraints.txt --group bench
	python -m benchmarks.throughput --minutes 4.5 --seconds 1.5 $(if $(BASE),--base $(BASE)) $(BENCH)

bench-full: setup ## Measure every case beside every peer: hours. The same command goes on where it was stopped.
	uv pip install --python $(BIN)/python --quiet --constraint constraints.txt --group bench
	python -m benchmarks.throughput --full $(if $(BASE),--base $(BASE)) $(BENCH)

bench-publish: setup ## Put the figures of bench-full into docs/benchmarks.md, with a chart and the JSON.
	uv pip install --python $(BIN)/python --quiet --constraint constraints.txt --group bench
	python -m benchmarks.throughput.publish dist/bench-full.json

costs: setup ## Measure what a job costs in commands, bytes, calls and lines of Lua, and rewrite the record that CI compares with.
	python -m tests.support.costs

bench-scaling: setup ## Simulate the autoscaler against KEDA; tables and plots go to docs/.
	uv pip install --python $(BIN)/python --quiet --constraint constraints.txt --group bench
	python -m benchmarks.scaling

docs: setup ## Build the documentation into site/, strictly.
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

sbom: setup ## Write the images' bills of materials (CycloneDX) into dist/.
	python -m tools.sbom

bench-operator: setup ## Measure the operator with 200 AgentQueues on a real API server (Linux, root, Go).
	python -m benchmarks.operator

constraints: setup ## Pin the newest versions that fit.
	uv pip compile --quiet --upgrade --no-header --no-annotate --no-emit-package agentqueue --universal --python-version 3.11 \
	  --group dev --group bench --all-extras pyproject.toml operator/pyproject.toml worker/pyproject.toml --output-file constraints.txt
