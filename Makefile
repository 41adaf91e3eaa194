# make help tells the targets. Each of them installs what it needs by itself, once.

PYTHON := .venv/bin/python
REAL   := ../shared/rsna_sample
# B0 from scratch in two CPU minutes instead of days on a GPU: many small steps, and statistics that keep up with them.
B0_SHRUNK := --optimizer adam --epochs 7 --max-lr 2e-3 --batch-size 16 --augment light --no-pretrained --batchnorm-batches 30
DEMO   := RSNA_DATA=demo/data RSNA_WORK=demo $(PYTHON)

# Threads that wait spin a little, then sleep: sleeping at once slows small batches, long spinning starves busy cores.
export GOMP_SPINCOUNT := 10000

.PHONY: help demo real test torture check bench picture

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv/installed: requirements.txt constraints.txt pyproject.toml
	python3 -m venv .venv
	$(PYTHON) -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
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

# What the tests use beside that: the optional packages.
.venv/extras: .venv/installed
	$(PYTHON) -m pip install --disable-pip-version-check -e .[dask,jpeg] -c constraints.txt
	touch $@

# Two at a time, each with one core's threads: most of them compute, or wait, on one core.
test: .venv/extras ## all tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

torture: .venv/extras ## the robustness tests at their full counts, half an hour
	$(PYTHON) -m pytest -m torture --durations=0 -s

check: .venv/installed ## ruff, and notebooks without outputs
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/nbstripout --verify *.ipynb

picture: .venv/installed ## draws docs/phantom.png, the picture of the README
	$(PYTHON) models/make_phantom.py demo/picture --studies 12 --test-studies 1 --image-size 256
	mkdir -p docs && cp demo/picture/contact_sheet.png docs/phantom.png

bench: .venv/installed ## the measured claims of the README, each beside its peer; writes benchmarks/results.json
	$(PYTHON) benchmarks/run.py
