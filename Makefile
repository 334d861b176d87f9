# Everything runs in a virtual environment of the checkout's own; PYTHON chooses what it is made from.
PYTHON ?= python3
BIN := .venv/bin
# A process for each core, each with one thread: small products are no faster with two.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup
COMPARE := $(BIN)/dualprop compare --data digits --hidden 128,128 --epochs 20 --batch-size 50 \
  --optimizer sgd --lr 0.1 --weight-decay 0.002 --lr-schedule cosine --warmup-epochs 1

.PHONY: demo demo-all test test-all check docs try-wheel clean

demo: .venv/installed  ## five rules on real handwritten digits, side by side: a minute
	@echo "Five rules, two seeds each, on 1,797 real handwritten digits: about a minute on 2 cores."
	@$(COMPARE) --rules bp,dp,kp-dp,p-dp,ep
	@printf '%s\n' '' 'What to try next:' \
	  '  make demo-all                                     every rule: two to three minutes' \
	  '  $(BIN)/dualprop train --rule ep --help            what the settings of a rule do' \
	  '  $(BIN)/dualprop train --rule dp --beta 0.1 --run runs/mine' \
	  '  $(BIN)/dualprop predict runs/mine FILE            what its net makes of images of yours' \
	  '  $(BIN)/dualprop reproduce mnist-mlp --budget 30m  a table of the paper' \
	  '  $(BIN)/dualprop data list                         more data'

demo-all: .venv/installed  ## every rule
	@echo "All rules, two seeds each, on 1,797 real handwritten digits: two to three minutes on 2 cores."
	@$(COMPARE) --rule-settings K=20

test: check  ## lint, types and every oracle: what to run before each commit, about 3 minutes on 2 cores
	$(PYTEST) -m "not slow"

test-all: check  ## the same with whole grids, whole trainings and the sabotages: less than 30 minutes
	$(PYTEST)

check: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/documenting  ## the site, in docs/_build/html: some minutes, for its notebooks run; no network
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "site: docs/_build/html/index.html"

try-wheel: .venv/developing  ## the wheel, installed from the index into an environment that has nothing else
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --outdir build/wheel
	$(BIN)/python -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --quiet build/wheel/*.whl
	cd build/wheel && venv/bin/dualprop train --hidden 16 --epochs 1 --run run && venv/bin/dualprop eval run
	rm -rf build/wheel/venv

clean:  ## the virtual environment; runs/ stays
	rm -rf .venv build

# Debian's python3 may come without ensurepip: then its own pip installs pip into the new environment.
.venv/bin/pip:
	$(PYTHON) -m venv .venv || { \
	  $(PYTHON) -m venv --clear --without-pip .venv && \
	  $(PYTHON) -m pip install --target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" pip && \
	  printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m pip "$$@"\n' > $@ && chmod +x $@; }

.venv/installed: .venv/bin/pip pyproject.toml
	$(BIN)/pip install -e .
	touch $@

.venv/documenting: .venv/installed
	$(BIN)/pip install -e '.[docs]'
	touch $@

.venv/developing: .venv/installed
	$(BIN)/pip install -e '.[dev]'
	touch $@
