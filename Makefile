PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
DEMO := demo-output

.PHONY: demo test test-slow test-readers lint clean

demo: $(INSTALLED)
	rm -rf $(DEMO)
	$(RUN) -m proxyclip.demo.scenes $(DEMO)/images --count 24
	$(VENV)/bin/proxyclip label --input $(DEMO)/images --output $(DEMO)/labels \
	  --vocabulary proxyclip/demo/vocabulary.json --preset demo --shard-size 8 --keep-features
	$(VENV)/bin/proxyclip preview $(DEMO)/labels
	$(VENV)/bin/proxyclip relabel --source $(DEMO)/labels --output $(DEMO)/food-and-animals \
	  --vocabulary proxyclip/demo/food_and_animals.json
	$(VENV)/bin/proxyclip preview $(DEMO)/food-and-animals
	$(VENV)/bin/proxyclip gallery $(DEMO)/labels --compare $(DEMO)/food-and-animals --title "Drawn scenes"
	$(VENV)/bin/proxyclip gallery $(DEMO)/food-and-animals --compare $(DEMO)/labels --title "Food and animals"
	@echo "Open in a browser: file://$(CURDIR)/$(DEMO)/labels/gallery/index.html"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder --durations=15

test-slow: $(INSTALLED)
	$(RUN) -m pytest -m slow

# The readers of some export formats need older versions of other packages, so they get an environment of their own.
test-readers:
	$(PYTHON) -m venv .venv-readers
	.venv-readers/bin/pip install --quiet --editable ".[readers]"
	.venv-readers/bin/python -m pytest tests/export

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) .venv-readers .venv-lowest $(DEMO) build *.egg-info

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@
