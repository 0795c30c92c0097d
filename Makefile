# `make demo` and `make test` prepare .venv by themselves. They need Python >= 3.10 with pip and venv, and make.
#   make demo ARGS="--data DIR"
#   make demo PYTHON=python3.12
#   make bench ARGS="DIR DIR"        folders of real pictures, MVTec style
#   make bench-train SETS="DIR DIR"  the training against flat ones; the four drawn products come on top
#   make bench-ablation, bench-few   the same for what each part brings and for few pictures
#   make bench-gate SETS="DIR DIR"   what the quality gate costs, catches and stops wrongly; bench-station: the station without its engine
#   make bench-page                  what a loaded page costs the station beside it
#   make bench-mqtt FLAP_S=3600      events: time, disk, memory; outages, kills, a thousand stations
#   make badday, soak KILLS=1000     a station under attack; fuzz: what the network may send
#   make check-export ARGS="DIR DIR"  audit, NVIDIA's builder, fidelity and accuracy gate; a drawn part without ARGS
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
SETS   ?=
# Most tests wait for processes; a file of tests stays in one of them.
WORKERS ?= 2
# Version 5 needs node >= 22.9.
NODE_RED ?= node-red@4.1.15

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
DEMO_READY := $(VENV)/.demo-ready
DEV_READY  := $(VENV)/.dev-ready

.PHONY: demo test check check-export nvidia peers interop bench bench-train bench-ablation bench-few bench-edge bench-gate bench-mqtt bench-station bench-page soak fuzz badday clean
.DELETE_ON_ERROR:

demo: $(DEMO_READY)
	$(BIN)/kenpin demo $(ARGS)

test: $(DEV_READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# What the tests of TensorRT and of the device need: NVIDIA's parser from PyPI, and pycuda, which takes the CUDA
# toolkit and two minutes. No GPU. Without them, these tests are left out.
nvidia: $(DEV_READY)
	$(PIP) -e '.[dev,rtx-check]'
	scripts/install_pycuda.sh $(BIN)/python

# Cameras and Sparkplug, as others made them. PyGObject is built here: it takes Aravis and the headers of GObject
# introspection (gir1.2-aravis-0.8 libgirepository1.0-dev libcairo2-dev pkg-config). pysparkplug asks for an older
# paho than ours; only its decoder is used. Without them, these tests are left out.
peers: $(DEV_READY)
	$(PIP) -e '.[dev,aravis,pylon]'
	$(PIP) --no-deps pysparkplug==0.6.1

# Node-RED, and a Sparkplug host and a reader of CloudEvents of npm's packages, against a station. Needs
# node >= 20 and npm, and takes two minutes.
interop: $(DEV_READY)
	npm install --no-save --omit=optional --no-audit --no-fund --prefix build/interop $(NODE_RED) sparkplug-payload@1.0.3 cloudevents@10.0.0 mqtt@5.16.0
	NODE_PATH=$(CURDIR)/build/interop/node_modules $(BIN)/python -m pytest tests/interop/node_red.py tests/interop/sparkplug_npm.py tests/interop/cloudevents_npm.py

check-export: $(DEV_READY)
	$(BIN)/python scripts/check_export.py $(ARGS)

bench: $(DEV_READY)
	$(BIN)/python -m benchmarks.real_pictures $(ARGS)

DRAWN := --product fabric --product metal --product board --product cap

bench-train: $(DEV_READY)
	$(BIN)/kenpin bench train $(foreach set,$(SETS),--data $(set)) $(DRAWN) $(ARGS)

bench-ablation: $(DEV_READY)
	$(BIN)/kenpin bench ablation --results runs/bench-ablation $(foreach set,$(SETS),--data $(set)) --product fabric --product board $(ARGS)

bench-few: $(DEV_READY)
	$(BIN)/kenpin bench few --results runs/bench-few $(foreach set,$(SETS),--data $(set)) --product board $(ARGS)

bench-edge: $(DEV_READY)
	$(BIN)/python -m benchmarks.edge_cost $(ARGS)
	$(BIN)/python -m benchmarks.engine_overhead

bench-mqtt: $(DEV_READY)
	$(BIN)/python -m benchmarks.mqtt $(ARGS)
	$(BIN)/python -m benchmarks.mqtt_outage
	$(BIN)/python -m benchmarks.mqtt_faults --flap-s $(or $(FLAP_S),60)
	$(BIN)/python -m benchmarks.mqtt_crowd

bench-page: $(DEV_READY)
	$(BIN)/python -m benchmarks.page_load $(ARGS)

bench-station: $(DEV_READY)
	$(BIN)/python -m benchmarks.station_overhead $(ARGS)

bench-gate: $(DEV_READY)
	$(BIN)/python -m benchmarks.quality_gate $(SETS)

# The long form of what the tests do shortly: kill -9 of every process, capture processes killed and stopped, a line
# that is far too fast, power cuts; then faults of disk and clock, a camera that is unplugged, overload, a million frames.
SOAK := KENPIN_KILLS=$(or $(KILLS),1000) KENPIN_CYCLES=200 KENPIN_OVERLOAD_S=600 KENPIN_CUTS=5000
soak: $(DEV_READY)
	$(SOAK) $(BIN)/python -m pytest --log-cli-level=INFO tests/edge_runtime/test_unattended.py tests/edge_runtime/test_capture.py tests/edge_runtime/test_power_cut.py
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.camera_cycles
	$(BIN)/python -m benchmarks.overload
	$(BIN)/python -m benchmarks.soak --frames $(or $(FRAMES),1000000) --minutes 600

# All tests of properties with examples drawn anew, and a night of what the network may send as a command: the
# usual tests take the same ones each time, 10,000 of the commands.
fuzz: $(DEV_READY)
	KENPIN_FUZZ=$(or $(EXAMPLES),1000000) $(BIN)/python -m pytest -m hypothesis tests

badday: $(DEV_READY)
	$(BIN)/python -m benchmarks.badday $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# An installation that was stopped halfway leaves .unfinished behind; the next one starts from nothing.
# torch goes first, alone, so that the build that pip is told to take (CPU or CUDA) stays.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12")'
	@if [ -e $(VENV)/.unfinished ]; then rm -rf $(VENV); fi
	$(PYTHON) -m venv $(VENV)
	@touch $(VENV)/.unfinished && rm -f $(DEMO_READY) $(DEV_READY)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[$(1)]'
	@rm $(VENV)/.unfinished
endef

$(DEMO_READY): pyproject.toml constraints.txt
	$(call install,demo)
	@touch $@

$(DEV_READY): pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(DEMO_READY) $@
