# Two commands for a newcomer: `make run` and `make test`. `make help` lists the rest.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL := fixtures/models/PyLlama-7M
CHECKPOINTS ?= build/zoo
# Tests are spread over as many processes as there are processors; JOBS=0 runs them in one.
JOBS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
WORLDS ?= here oldest musl aarch64 windows
ARCHITECTURES ?=
PACKAGING := pyproject.toml setup.py $(wildcard native/* native/*/*)
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

run: $(VENV)/.run ## convert the trained model kept in fixtures/ to Q4_K_M and show the result
	mkdir -p out
	$(BIN)/gguf-forge convert $(MODEL) --type Q4_K_M --outfile out/PyLlama-7M-Q4_K_M.gguf
	$(BIN)/gguf-forge inspect out/PyLlama-7M-Q4_K_M.gguf

test: $(VENV)/.test ## the test suite
	$(PYTEST) -m "not zoo and not runtime and not long"

test-long: $(VENV)/.test ## those tests that try hundreds of random cases, or all there are
	$(PYTEST) -m "long and not zoo and not runtime"

test-zoo: $(VENV)/.test $(CHECKPOINTS)/.made ## ZOO=folder (golden/, make.py): every checkpoint against the reference
	ZOO=$(ZOO) CHECKPOINTS=$(CHECKPOINTS) $(PYTEST) -m zoo tests/convert

test-vocabs: $(VENV)/.test ## VOCABS=folder (.gguf with .gguf.inp, .gguf.out): published vocabularies and texts
	GGUF_VOCABS=$(VOCABS) $(BIN)/python -m pytest tests/convert/test_check.py

test-imports: $(VENV)/.test build/quant-zoo/.made ## QUANT_ZOO=folder (unpack.py, truth.json): quantized checkpoints, every tensor
	QUANT_ZOO=build/quant-zoo $(PYTEST) tests/source/test_packed.py tests/convert/test_imported.py \
	  tests/runtime/test_imports.py

test-run: $(VENV)/.test ## converted files opened and run by llama.cpp, of the test suite
	$(BIN)/python -m pytest tests/cli/test_generation.py

test-runtime: $(VENV)/.test $(CHECKPOINTS)/.made build/torch/.transformers ## ZOO=folder: files in llama.cpp, against transformers
	$(BIN)/pip install -q xllamacpp
	CHECKPOINTS=$(CHECKPOINTS) TORCH_PYTHON=build/torch/bin/python $(BIN)/python -m pytest -m runtime tests/runtime

test-pythons: $(BIN)/python ## the suite on every Python at hand (PYTHONS=more interpreters, TESTS=pytest arguments)
	$(BIN)/python -m tests.pythons $(TESTS)

faults: $(VENV)/.test ## every write killed or failing, races, cut sources, lost power: a table of what came of it
	FAULTS=1 $(PYTEST) tests/faults

fuzz: $(VENV)/.test ## readers and codecs, guided by coverage, three minutes; SECONDS= or RUNS= of each target (TARGETS= some)
	-$(BIN)/pip install -q --only-binary :all: atheris==3.0.0
	env SECONDS="$(SECONDS)" RUNS="$(RUNS)" $(if $(FUZZ),FUZZ="$(FUZZ)") $(BIN)/python -m tests.fuzz $(TARGETS)

coverage: $(VENV)/.test ## every branch of parser, validator and writer (pyproject.toml names them) by tests/format, or it fails
	$(BIN)/pip install -q coverage
	mkdir -p build
	$(BIN)/python -m coverage run -m pytest -q tests/format
	$(BIN)/python -m coverage report

mutants: $(VENV)/.test ## which changes to parser, validator and writer no test of tests/format notices (MUTATE= modules, EVERY= n-th)
	env EVERY="$(or $(EVERY),1)" $(BIN)/python -m tests.mutation $(MUTATE)

sanitize: $(VENV)/.dev ## the suite on a core built with ASan and UBSan, in a copy under build/sanitize
	bash tests/native/sanitize.sh $(abspath $(BIN)/python) build/sanitize -n $(JOBS)

test-neon: ## the NEON kernels, cross-compiled and run under qemu-user
	bash tests/native/neon.sh

cuda: ## build/cuda/: the kernels for every GPU architecture by nvcc, without a GPU, and what resources they take
	$(PYTHON) native/cuda/build.py build/cuda $(ARCHITECTURES)

cuda-wheel: ## dist/: the kernels of build/cuda (made first if they are not there) as a wheel of their own, gguf-forge[cuda]
	test -f build/cuda/kernels.json || $(MAKE) cuda
	$(PYTHON) native/cuda/wheel.py build/cuda dist

test-cuda-host: $(VENV)/.test ## the kernels compiled for the host, on an emulated GPU, plain and under ASan and UBSan
	CUDA_HOST=1 $(BIN)/python -m pytest tests/cuda
	bash tests/cuda/sanitize.sh $(abspath $(BIN)/python)

test-cuda: ## on a GPU, without network or install: every kernel against the core, and a table, also in build/cuda-report
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m tests.cuda $(GIVEN)

count-neon: ## docs/neon.md: instructions a weight of plain C and NEON, counted under qemu-user
	bash tests/native/count_neon.sh

cross: $(VENV)/.wheels ## the core compiled for every system by cross-compilers, with warnings as errors
	$(BIN)/python -m tests.wheels dist --compile-only
	bash tests/native/msvc.sh $(abspath $(BIN)/python)

wheels: $(VENV)/.wheels ## dist/: source distribution and a wheel for each system, cross-compiled, checked, and run where one can
	$(BIN)/python -m pytest -c /dev/null --rootdir . --noconftest tests/wheels
	$(BIN)/python -m tests.wheels dist
	$(BIN)/python -m tests.wheels.run dist $(WORLDS)

lint: $(VENV)/.dev ## ruff, and the C core with warnings as errors under each compiler at hand
	$(BIN)/ruff check .
	for cc in gcc clang; do ! command -v $$cc >/dev/null || CC=$$cc GGUF_FORGE_WERROR=1 \
	  $(BIN)/python setup.py -q build --build-base build/lint-$$cc --force || exit 1; done

types: $(VENV)/.dev ## mypy --strict on package, converters and tests, as on Linux, macOS and Windows
	for system in linux darwin win32; do \
	  $(BIN)/mypy --platform $$system gguf_forge converters tests setup.py native/build_ffi.py || exit 1; done

bench: $(VENV)/.bench ## one table against ggml, gguf-py and the reference converter, also in docs/benchmarks.md
	$(BIN)/python -m tests.bench

quality: $(VENV)/.test ## the table of docs/quality.md: recipes and efforts, judged on a text (GIVEN=model heldout calibration)
	$(BIN)/python -m tests.quality --page $(GIVEN)

amounts: $(VENV)/.test ## how much text a calibration needs, and which (GIVEN=model.gguf texts --work folder)
	$(BIN)/python -m tests.quality.amounts $(GIVEN)

clean: ## remove what the other targets made
	rm -rf build dist out $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis gguf_forge/_core*.so

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python $(PACKAGING)
	$(BIN)/pip install -q -e .
	touch $@

# The package is installed then, and is not compiled again: pip adds what the extra asks for.
$(VENV)/.test $(VENV)/.dev $(VENV)/.bench $(VENV)/.wheels: $(VENV)/.%: $(VENV)/.run
	$(BIN)/pip install -q 'gguf-forge[$*]'
	touch $@

build/zoo/.made:
	test -f "$(ZOO)/make.py" || { echo "make test-vocabs test-zoo needs ZOO=folder with make.py and golden/" >&2; exit 2; }
	$(PYTHON) -m venv build/torch
	build/torch/bin/pip install -q numpy torch==2.13.0
	build/torch/bin/python $(ZOO)/make.py build/zoo
	touch $@

build/quant-zoo/.made:
	test -f "$(QUANT_ZOO)/unpack.py" || { echo "make test-imports needs QUANT_ZOO=folder with unpack.py" >&2; exit 2; }
	$(PYTHON) "$(QUANT_ZOO)/unpack.py" build/quant-zoo
	cp "$(QUANT_ZOO)/truth.json" build/quant-zoo/
	touch $@

build/torch/.transformers: $(CHECKPOINTS)/.made
	build/torch/bin/pip install -q transformers sentencepiece protobuf
	touch $@

.PHONY: run test test-long faults test-zoo test-imports test-run test-pythons test-runtime sanitize test-neon cuda cuda-wheel test-cuda test-cuda-host count-neon cross wheels lint types bench quality amounts clean help fuzz coverage mutants
