# Every target sets up what it needs. Start with `make demo` or `make test`.
PYTHON ?= python3
PORT ?= 4566
STACK ?= truthloop
VENV := .venv
BIN := $(VENV)/bin
# The locks are complete, so pip need not resolve anything: --no-deps, and every file by its hash.
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r

# The SAM CLI reports its use to AWS unless told not to.
export SAM_CLI_TELEMETRY := 0

.DEFAULT_GOAL := help
.PHONY: help install demo local test checks test-lambda-python soak lint types check-model decisions bench bench-serve build deploy images pipeline models lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

install: $(VENV)/.demo ## Make .venv with what the demo needs, and the truthloop command

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Truthloop needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and name it: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes on a slow network)"
	@$(PYTHON) -m venv $(VENV) && touch $@

$(VENV)/.demo: $(VENV)/.python requirements/demo.txt requirements/torch.txt pyproject.toml
	@echo "Installing what the demo needs"
	@$(BIN)/python $(PIP_INSTALL) requirements/demo.txt
	@$(BIN)/python requirements/install_torch.py
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo requirements/test.txt
	@echo "Installing what the tests need"
	@$(BIN)/python $(PIP_INSTALL) requirements/test.txt
	@touch $@

.venv-sam/.done: $(VENV)/.python requirements/sam.txt
	@echo "Installing the SAM CLI into an environment of its own (it pins an older boto3)"
	@$(PYTHON) -m venv .venv-sam && .venv-sam/bin/python $(PIP_INSTALL) requirements/sam.txt && touch $@

.venv-sdk/.done: $(VENV)/.python requirements/sdk.txt
	@echo "Installing the SageMaker SDK into an environment of its own (about 1 GB; it generates the pipeline)"
	@$(PYTHON) -m venv .venv-sdk && .venv-sdk/bin/python $(PIP_INSTALL) requirements/sdk.txt && touch $@

.venv-bench/.done: $(VENV)/.python requirements/bench.txt
	@echo "Installing the servers that ours is compared with into an environment of their own"
	@$(PYTHON) -m venv .venv-bench && .venv-bench/bin/python $(PIP_INSTALL) requirements/bench.txt && touch $@

demo: install ## Play the whole loop once on this machine, from base set to better model
	@$(BIN)/python -m demo

local: install ## Keep the local AWS up on http://localhost:$(PORT), with the stack and the base set
	@PORT=$(PORT) $(BIN)/python -m demo.serve

# Environments are set up and checks run side by side; a make that can (4.0 and newer) keeps their output apart.
SIDE_BY_SIDE = -j 3 $(if $(filter output-sync,$(.FEATURES)),--output-sync=line)
# One more than the processors of a small machine: many tests mostly wait. Their order is tests/conftest.py's.
TEST_PROCESSES ?= 3

test: ## Run every check and test
	@$(MAKE) --no-print-directory $(SIDE_BY_SIDE) checks
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
	  $$([ -f .venv-3.13/.done ] && echo --ignore=tests/unit --ignore=tests/handlers)

# What installs longest comes first.
checks: .venv-sdk/.done $(VENV)/.test .venv-sam/.done test-lambda-python types lint

# Lambda runs Python 3.13: where this machine has one, the layer and the functions are tested on it, else on the
# host's with all the rest.
test-lambda-python: $(VENV)/.python
	@PYTHON313=$$($(BIN)/python requirements/find_python.py 3.13); \
	if [ -z "$$PYTHON313" ]; then echo "No Python 3.13 here: the layer and the functions are tested on $$($(BIN)/python --version) only"; exit 0; fi; \
	if [ ! -f .venv-3.13/.done ] || [ requirements/handlers.txt -nt .venv-3.13/.done ]; then \
	  echo "Installing the handlers' test environment on Python 3.13"; \
	  $$PYTHON313 -m venv .venv-3.13 && .venv-3.13/bin/python $(PIP_INSTALL) requirements/handlers.txt && touch .venv-3.13/.done || exit 1; \
	fi; \
	.venv-3.13/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/unit tests/handlers

lint: $(VENV)/.test .venv-sam/.done ## Run ruff, cfn-lint, sam validate and hadolint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/cfn-lint template.yaml containers/pipeline/template.yaml
	@AWS_DEFAULT_REGION=us-east-1 .venv-sam/bin/sam validate --lint
	@$(BIN)/hadolint containers/*/Dockerfile

types: $(VENV)/.test ## Run mypy in strict mode
	@$(BIN)/mypy layers/common/truthloop local demo cli containers requirements functions/*/app.py

check-model: install ## Say in words whether a model's file keeps its contract (FILE=my_model.py, ARGS="--shape 10x224x3")
	@PYTHONPATH=containers $(BIN)/python -m models.check "$(FILE)" $(ARGS)

decisions: install ## Print the decision log: why it did or did not retrain (ARGS="g00000007", "--json" …)
	@$(BIN)/truthloop decisions --stack $(STACK) $(ARGS)

SECONDS ?= 600
soak: $(VENV)/.test ## Search for SECONDS seconds for steps that break the loop's promises; play 10,000 uploads
	@TRUTHLOOP_SOAK=$(SECONDS) $(BIN)/python -m pytest -s tests/system/test_loop_rules.py
	@TRUTHLOOP_UPLOADS=10000 $(BIN)/python -m pytest -s tests/system/test_ten_thousand_uploads.py

bench: $(VENV)/.test ## Run the benchmarks; each prints ratios beside its peer or floor
	@missed=; for benchmark in bench/*.py; do \
	  echo "== $$benchmark"; $(BIN)/python $$benchmark || missed="$$missed $$benchmark"; done; \
	[ -z "$$missed" ] || { echo "These failed or miss a limit of theirs:$$missed" >&2; exit 1; }

bench-serve: $(VENV)/.test .venv-bench/.done ## Measure the inference server beside others, and its latency
	@$(BIN)/python bench/serve_latency.py
	@$(BIN)/python bench/serve_requests.py

build: .venv-sam/.done ## Build what is deployed (sam build), with any host Python
	@.venv-sam/bin/sam build

deploy: build ## Deploy to the AWS account that your credentials name (sam deploy)
	@.venv-sam/bin/sam deploy --stack-name $(STACK)

# The base's tag says what is in it, so one that is in the registry already is pulled, not built.
BASE_TAG = $$(cat containers/base/Dockerfile containers/base/requirements.txt | sha256sum | cut -c1-16)
IMAGE_PREFIX = $(if $(REGISTRY),$(REGISTRY)/)truthloop-
TAG ?= latest
# SageMaker takes Docker's manifests only: without the last two options a recent Docker writes OCI's.
DOCKER_BUILD = docker buildx build --platform linux/amd64 --provenance=false --output type=docker

images: ## Build the images (REGISTRY=<account>.dkr.ecr.<region>.amazonaws.com PUSH=1 pushes them, TAG=latest)
	@command -v docker >/dev/null || { \
	  echo "make images needs Docker, and there is no docker on the PATH: install it, or build where it is." >&2; exit 1; }
	@[ -z "$(PUSH)" ] || [ -n "$(REGISTRY)" ] || { \
	  echo "make images PUSH=1 needs the registry: REGISTRY=<account>.dkr.ecr.<region>.amazonaws.com" >&2; exit 1; }
	@base="$(IMAGE_PREFIX)base:$(BASE_TAG)"; set -e; \
	$(if $(REGISTRY),docker pull --quiet "$$base" ||) $(DOCKER_BUILD) -t "$$base" -f containers/base/Dockerfile containers; \
	for image in training inference; do \
	  $(DOCKER_BUILD) --build-arg BASE="$$base" -t "$(IMAGE_PREFIX)$$image:$(TAG)" -f "containers/$$image/Dockerfile" containers; \
	done; \
	$(if $(PUSH),for image in "$$base" $(IMAGE_PREFIX)training:$(TAG) $(IMAGE_PREFIX)inference:$(TAG); do docker push "$$image"; done,true)

pipeline: .venv-sdk/.done ## Generate the pipeline definition from containers/pipeline/definition.py
	@cd containers && ../.venv-sdk/bin/python -m pipeline.definition

models: $(VENV)/.demo ## Extract from botocore's data what the functions read at their start
	@$(BIN)/python layers/common/sdk_models.py

lock: $(VENV)/.python ## Lock the dependencies with hashes (UPGRADE=1: their newest versions)
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet uv
	@build/lock/bin/python requirements/lock.py

clean: ## Delete everything that make has made
	@rm -rf .venv .venv-sam .venv-sdk .venv-bench .venv-3.13 .aws-sam build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
