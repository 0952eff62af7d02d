# make demo    environment, install, and the main job: separate a scene with the default model
# make test    environment with the development tools, and the tests
# make check   format, lint, types, import contracts
# make bench   everything that is measured: speed and memory, peers, quality, as tables
# make slow    the tests that take minutes
# make docs    the documentation site, in build/site

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
JOBS ?= 2
MANIFEST ?= $(or $(UNBRAID_SHARED),../shared)/data/manifest.csv

# Many containers set it, and then every process compiles all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow check docs bench clean

demo: $(VENV)/.installed
	$(BIN)/unbraid demo

# One thread for each worker: more would fight for the cores.
test: $(VENV)/.developing
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal

slow: $(VENV)/.developing
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow -n $(JOBS) --dist worksteal

check: $(VENV)/.developing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Broken links, pages that the navigation lacks and names that are gone are errors.
docs: $(VENV)/.developing
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Speed takes about twenty minutes, and wants the machine for itself.
bench: $(VENV)/.developing
	$(BIN)/python bench/compute.py
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/speed.py --threads 2 --runs 1
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/training_speed.py
	$(BIN)/python bench/mixing_speed.py
	$(BIN)/python bench/precision.py
	$(BIN)/python bench/serving.py
	$(BIN)/unbraid evaluate pool --manifest $(MANIFEST) --overwrite
	$(BIN)/python bench/borders.py
	$(BIN)/python bench/identity.py
	$(BIN)/python bench/stereo.py
	$(BIN)/python bench/presence.py
	$(BIN)/python bench/discover.py --manifest $(MANIFEST)
	$(BIN)/python bench/discover.py --manifest $(MANIFEST) --recordings 8
	$(BIN)/python bench/cluster.py
	$(BIN)/python bench/teaching.py
	$(BIN)/python bench/odd_clips.py
	$(BIN)/python bench/slots.py --manifest $(MANIFEST)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,augment,export,eval,pesq,hdf5,map,lora,cluster,serve,web]' --group dev --group docs
	touch $@

clean:
	rm -rf $(VENV) unbraid-demo build dist
