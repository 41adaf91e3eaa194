# make help tells the targets. Each of them installs what it needs by itself, once.

PYTHON := .venv/bin/python
INSTALL := $(PYTHON) -m pip install --disable-pip-version-check
REAL   := ../shared/rsna_sample
# B0 from scratch in two CPU minutes instead of days on a GPU: many small steps, and statistics that keep up with them.
B0_SHRUNK := --optimizer adam --epochs 7 --max-lr 2e-3 --batch-size 16 --augment light --no-pretrained --batchnorm-batches 30
DEMO   := RSNA_DATA=demo/data RSNA_WORK=demo $(PYTHON)

# Threads that wait spin a little, then sleep: sleeping at once slows small batches, long spinning starves busy cores.
export GOMP_SPINCOUNT := 10000

.PHONY: help demo real test torture check bench picture lock

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# The tested set, each file by its hash. The build backend comes first: it builds what has no wheel, and this package.
.venv/installed: constraints.txt pyproject.toml
	python3 -m venv .venv
	sed -n '/^setuptools==/,/[^\\]$$/p' constraints.txt > .venv/backend.txt
	$(INSTALL) --require-hashes -r .venv/backend.txt
	$(INSTALL) --require-hashes --no-build-isolation -r constraints.txt
	$(INSTALL) --no-build-isolation --no-deps -e .
	touch $@

demo: .venv/installed ## the whole path on a phantom, from DICOM to demo/submission.csv and a report, in CPU minutes
	$(PYTHON) models/make_phantom.py demo/data
	$(DEMO) models/prepare.py --image-size 64
	$(DEMO) models/train_small.py --fold 0
	$(DEMO) models/train_small.py --fold 1
	$(DEMO) models/train_b0_224.py --fold 0 --image-size 64 $(B0_SHRUNK)
	$(DEMO) models/infer_small.py --fold 0
	$(DEMO) models/infer_small.py --fold 1
	$(DEMO) models/infer_b0_224.py --fold 0
	RSNA_DATA=demo/data RSNA_WORK=demo .venv/bin/jupyter execute --output=demo/blending blending.ipynb
	$(DEMO) models/score.py
	$(DEMO) models/report.py
	@if [ -d $(REAL) ]; then $(MAKE) --no-print-directory real; fi

real:           # how the small network, trained on the phantom alone, ranks real slices
	$(PYTHON) models/prepare.py --data $(REAL) --work demo/real --image-size 64
	$(PYTHON) models/infer_small.py --fold 0 --weights demo/runs/small/fold0 --split train --work demo/real
	$(PYTHON) models/infer_small.py --fold 1 --weights demo/runs/small/fold1 --split train --work demo/real
	$(PYTHON) models/score.py demo/real/runs/small/fold0/train.parquet demo/real/runs/small/fold1/train.parquet --labels $(REAL)/stage_2_train.csv --work demo/real

# Two at a time, each with one core's threads: most of them compute, or wait, on one core.
test: .venv/installed ## all tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

torture: .venv/installed ## the robustness tests at their full counts, half an hour
	$(PYTHON) -m pytest -m torture --durations=0 -s

check: .venv/installed ## ruff, types, and notebooks without outputs
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyrefly check
	.venv/bin/nbstripout --verify *.ipynb

picture: .venv/installed ## draws docs/phantom.png, the picture of the README
	$(PYTHON) models/make_phantom.py demo/picture --studies 12 --test-studies 1 --image-size 256
	mkdir -p docs && cp demo/picture/contact_sheet.png docs/phantom.png

bench: .venv/installed ## the measured claims of the README, each beside its peer; writes benchmarks/results.json
	$(PYTHON) benchmarks/run.py

# Versions stay while they satisfy pyproject.toml; newer ones: make lock UPGRADE=--upgrade
lock: .venv/installed ## writes constraints.txt: every version with its hashes, none younger than seven days
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --exclude-newer "7 days" \
		--generate-hashes --no-annotate --custom-compile-command "make lock" --quiet $(UPGRADE) --output-file constraints.txt
