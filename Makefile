# Two commands matter: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= build/demo
# Two cores: one thread each for two test workers beats two threads each. A worker that has no tests left takes
# some from the other; by default (--dist load) tests are handed out in large blocks, of which one can have most
# of the whole runs.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
TEST_WORKERS := -n 2 --dist worksteal

.PHONY: demo test test-long test-fast lint install wheel results ablations leave-one-source-out streaming input coverage approximate million browser dicom-table constraints docs card-code exports sbom docs-site tutorials notebooks report-image release-check clean chaos soak fuzz mutants gpu

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/domainclip demo $(DEMO)

test: install
	$(TEST_ENV) $(BIN)/pytest $(TEST_WORKERS) -m "not long"

# The tests that take four seconds or more each.
test-long: install
	$(TEST_ENV) $(BIN)/pytest $(TEST_WORKERS) -q -m long

# While you work: no whole runs, no processes. Under 90 seconds.
test-fast: install
	$(TEST_ENV) $(BIN)/pytest $(TEST_WORKERS) -q -m "not run and not slow and not long"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What ships in the wheel works from anywhere: recipes by name and by file name, with their cards.
wheel: install
	rm -rf build/wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/pip install --quiet --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -c "import domainclip; assert 'site' in domainclip.__file__"
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -m domainclip recipes list
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -m domainclip validate -r medical_xray.yaml
	cd build/wheel && PYTHONPATH=site ../../$(BIN)/python -m domainclip validate -r quickstart

# The tables of docs/results/results.md, on real corpora and weights that the project does not ship.
results: install
	$(BIN)/python benchmarks/results.py

# The code of model cards, in a new environment with transformers, peft and sentence-transformers alone.
card-code: install
	rm -rf build/card-code
	$(PYTHON) -m venv build/card-code
	build/card-code/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	build/card-code/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt transformers peft sentence-transformers pillow
	HF_HUB_OFFLINE=1 $(BIN)/python -m tools.card_code build/card-code/bin/python

# What a user installs, in CycloneDX: of a new environment, which has no development tool in it.
sbom: install
	rm -rf build/sbom
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	build/sbom/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt ".[all]"
	$(BIN)/python -m tools.sbom build/sbom/bin/python build/sbom.cdx.json

# Every form of export, by the code of its README, in a new environment with its library and without this package.
exports: install
	rm -rf build/exports
	mkdir -p build/exports
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tools.exports build/exports

# What each part does on four real corpora; the tables of docs/results/ablations.md. Some hours.
ablations: install
	$(BIN)/python benchmarks/ablations.py

# What travels to hospitals that no training item is from; docs/results/leave_one_source_out.md. Some hours.
leave-one-source-out: install
	$(BIN)/python benchmarks/leave_one_source_out.py

# How often intervals hold the truth and equal models are called different; the table of docs/guide/evaluation.md.
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.coverage

# Recall and time of `search --approximate` on made vectors; the table of docs/guide/use.md.
# From start to the first step with many pairs: time, and private memory a process (PAIRS="100000 1000000").
PAIRS ?= 30000 100000
SOURCES ?= shards table saved
million: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/million.py --pairs $(PAIRS) --source $(SOURCES) --phases
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/many_rows.py

approximate: install
	$(BIN)/python -m benchmarks.approximate_search

# The page of `explore` in headless Chromium: keyboard, narrow screen, contrast, no console error. Part of `make test`
# where Chromium is installed.
browser: install
	$(TEST_ENV) $(BIN)/pytest tests/system/test_explore_browser.py

# Every DICOM file at hand, decoded as pydicom does or refused: the tables of docs/guide/dicom.md.
dicom-table: install
	$(BIN)/python benchmarks/dicom_table.py

# 100,000 pairs in tar shards through two processes: every one once, resumed in mid-epoch, in flat memory.
streaming: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/streaming.py

# What a lent GPU has to show, in ten minutes: the tables of docs/guide/speed.md. DEVICE=cpu SIZE=tiny tries it.
gpu: install
	PYTHON=$(BIN)/python bash benchmarks/gpu.sh

# Preparing a corpus: two processes against one, and JPEG files against Pillow alone.
input: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/input.py

# Checkpoints of open_clip of every kind against open_clip itself, and a server of the protocol of S3, in an environment
# of its own: open_clip needs torchvision, of the release that goes with the torch of constraints.txt, or pip would
# replace that by one for CUDA.
.PHONY: peers
peers:
	$(PYTHON) -m venv build/peers
	build/peers/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	build/peers/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[bench,timm,s3]" "moto[s3,server]" pytest
	OMP_NUM_THREADS=1 build/peers/bin/pytest -q tests/peers

# Kills, full disks and damaged files at every boundary of a save; every run must end with the same bytes.
chaos: install
	$(BIN)/python benchmarks/chaos.py

# Twenty thousand steps of a tiny model: neither memory nor open files may grow.
soak: install
	$(BIN)/python benchmarks/soak.py

# Files that people really have, and every way to break them: the table of docs/internals/fuzzing.md. 40 minutes.
FUZZ ?= 200000
fuzz: install
	DOMAINCLIP_FUZZ=$(FUZZ) DOMAINCLIP_FUZZ_PAGE=docs/internals/fuzzing.md $(TEST_ENV) $(BIN)/pytest tests/fuzz -q

# Single changes of the modules in which a silent error harms: their tests must catch nine of ten. By hand;
# half an hour. MUTANTS="splits ranking --sample 50" for a part.
mutants: install
	$(TEST_ENV) $(BIN)/python -m tools.mutants $(MUTANTS)

docs: install
	$(BIN)/python -m tools.generate_docs

# The documentation as a site in build/site: a broken link or a page without a place in the menu is an error.
docs-site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo build/site/index.html

# Every command of docs/tutorials as typed, in an empty home, on generated data. TUTORIALS="dicom art" for some.
tutorials: install
	OMP_NUM_THREADS=1 $(BIN)/python tools/tutorials.py $(TUTORIALS)

# The notebooks of examples/, each executed from the first cell to the last on generated data.
notebooks: install
	OMP_NUM_THREADS=1 $(BIN)/python tools/notebooks.py

# The wheel and the sdist as a user gets them: built, installed into fresh environments without development extras,
# and run outside the checkout in an empty home, with every Python from 3.11 to 3.13 that is installed.
# RELEASE="--no-demo --only 3.12" leaves out the demonstration and the other Pythons.
release-check: install
	$(BIN)/python tools/release_check.py $(RELEASE)

# The image of a report in the README, from the report of `make demo`; needs Chromium.
report-image: demo
	$(BIN)/python tools/report_image.py "$$(ls -td $(DEMO)/runs/*/ | head -1)report.html" docs/images/report.png

constraints: install
	( sed -n 1,2p constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' ) > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache
