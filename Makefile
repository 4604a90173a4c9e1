# make demo, make test: from a fresh clone with Python >= 3.11, pip, make and a C++ compiler. make test-all: all tests.
# Everything is installed in .venv, in the versions of constraints.txt. Also for the make 3.81 of macOS.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Neighbours stay on one worker, which compiles Numba's code and makes a module's fixtures once; who is done takes from others.
PYTEST_ARGS ?= -n auto --dist worksteal
DEMO_ARGS ?=

EXTRAS := torch,numba,cuda,plot,progress,test
SOURCES := $(shell find csrc hesskern -type f ! -name '*.so' ! -path '*/__pycache__/*') \
	CMakeLists.txt pyproject.toml constraints.txt README.md LICENSE
# The tests that reach the C++ kernels: repeated for every instruction set, and under the sanitizers.
KERNEL_TESTS ?= $(patsubst %,tests/backends/test_%.py,backends cpp_backend_bindings cpp_backend_blas cpp_backend_chain cpp_backend_descent) \
	$(patsubst %,tests/curvature/test_%.py,dense_blocks hessian_block hessian_products layer_condition softmax extreme_pairs) \
	$(patsubst %,tests/training/test_%.py,driver fit fit_ensemble minibatches cpu_measures reduced_network reduced_data) \
	tests/reductions/test_width_reduction.py tests/linalg/test_krylov.py tests/properties/test_odd_arrays.py
# Of them those that run C++: the code of the other backends is neither compiled for an instruction set nor sanitized.
IN_CPP := not numba and not numpy

# pip's first variable covers the build's own requirements up to pip 25.2, the second from then on. Relative: both are
# lists separated by blanks, and the path of a checkout may hold one.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What is tested is the installed package, whatever else the shell points to.
unexport PYTHONPATH
# As python -P, for the processes that tests start too: the checkout, which has no compiled extension, must not shadow it.
export PYTHONSAFEPATH := 1
RUN := $(BIN)/python -m
test test-all test-isa sanitize: export OPENBLAS_NUM_THREADS := 1
test test-all test-isa sanitize: export OMP_NUM_THREADS := 1

.PHONY: demo test test-all bench peers bench-cuda install tools lint format types stubs explain-suite attack test-isa sanitize \
	check-symbols dist check-dist lock clean

demo: install
	$(BIN)/hesskern demo $(DEMO_ARGS)

# Those marked `long` repeat a test at length or with other backends, compile for seconds, or time whole programs.
test: install
	$(RUN) pytest -m "not long" $(PYTEST_ARGS)

test-all: test
	$(RUN) pytest -m long $(PYTEST_ARGS)

install: $(VENV)/installed
tools: $(VENV)/tools

# Debian splits venv's copy of pip from Python; there the pip that is installed fills the environment.
$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"hesskern needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) || ($(PYTHON) -m venv --clear --without-pip $(VENV) && \
	$(PYTHON) -m pip --python $(BIN)/python install pip)
	touch $@

$(VENV)/installed: $(VENV)/created $(SOURCES)
	$(BIN)/python -m pip install --config-settings build-dir=build/venv ".[$(EXTRAS)]"
	touch $@

# The extra "dev" without building the package again.
$(VENV)/tools: $(VENV)/created pyproject.toml constraints.txt
	$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*project["optional-dependencies"]["dev"], sep="\n")' > $(VENV)/dev.txt
	$(BIN)/python -m pip install -r $(VENV)/dev.txt
	touch $@

CXX_FILES = $(shell find csrc tests -name '*.[ch]pp' -o -name '*.cuh')

# Ratios of one interleaved run on this machine, single thread: about half an hour. BENCH_ARGS="--task hvp --quick" is seconds.
BENCH_ARGS ?= --json build/bench.json --markdown build/bench.md --plots build/bench
bench: install
	PYTHONSAFEPATH= $(BIN)/python -m bench run $(BENCH_ARGS)

# The other libraries that the benchmarks compare with; what is not installed is reported as absent.
peers: install
	$(BIN)/python -m pip install --config-settings build-dir=build/venv ".[$(EXTRAS),peers]"

# On a machine with a graphics card, in one go and within ten minutes: builds, validates, runs the CUDA tests, times, and
# writes everything to OUT. It takes the Python that is there, with torch, numba, cuda-core, cmake, ninja, pybind11,
# scikit-build-core and hesskern's own requirements installed, needs no network and leaves that Python as it was.
# BENCH_CUDA_ARGS=--dry-run walks the same paths on the processor.
OUT ?= build/bench-cuda
BENCH_CUDA_ARGS ?=
CUDA_SITE := build/cuda-site
bench-cuda:
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= $(PYTHON) -m pip install --no-build-isolation --no-deps --no-index --upgrade \
	--target $(CUDA_SITE) --config-settings build-dir=build/cuda-cmake .
	PYTHONSAFEPATH= PYTHONPATH=$(abspath $(CUDA_SITE)) $(PYTHON) -m bench.cuda --out $(OUT) $(BENCH_CUDA_ARGS)

lint: install tools
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/python tools/stubs.py --check

format: tools
	$(RUN) ruff check --fix .
	$(RUN) ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

types: install tools
	$(RUN) mypy

stubs: install tools
	$(BIN)/python tools/stubs.py

# The corruption suite of hesskern.explain at full length: about half an hour on one core.
explain-suite: install
	HESSKERN_EXPLAIN_SUITE=1 OPENBLAS_NUM_THREADS=1 $(RUN) pytest tests/explanation/search/test_matrices_suite.py \
	tests/explanation/search/test_other_matrices.py -s

# Random problems, malformed calls, kills and threads against everything that is public: new ones each time, for so many
# seconds; with ATTACK_SEED=1 the same ones each time. ATTACK_ARGS="--case problem:12345" repeats one.
ATTACK_SECONDS ?= 60
ATTACK_SEED ?=
ATTACK_ARGS ?=
attack: install
	PYTHONPATH=tests/helpers OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(RUN) attack.__main__ --seconds $(ATTACK_SECONDS) \
	$(if $(ATTACK_SEED),--seed $(ATTACK_SEED)) $(ATTACK_ARGS)

# Every instruction set of this processor but the widest, which `make test` has run.
test-isa: install
	set -e; for isa in $$($(BIN)/python -c 'import hesskern; print(*hesskern.info()["available_isas"][1:])'); do \
	echo "HESSKERN_ISA=$$isa"; HESSKERN_ISA=$$isa $(RUN) pytest -k "$(IN_CPP)" $(PYTEST_ARGS) $(KERNEL_TESTS); done

# No inline function may be shared between the objects of two instruction sets.
check-symbols: install
	$(BIN)/python tools/check_symbols.py build/venv

# GCC on Linux. The sanitizer's library must come first in the process, and the C++ library before it starts, else it
# cannot see exceptions. Leaks are Python's own. The report goes to the process's stderr, which pytest must not hold back.
SANITIZED := build/sanitize/site
$(SANITIZED)/installed: $(VENV)/installed $(SOURCES)
	$(BIN)/python -m pip install --no-deps --upgrade --target $(SANITIZED) --config-settings build-dir=build/sanitize/cmake \
	--config-settings install.strip=false --config-settings cmake.define.HESSKERN_SANITIZE=ON \
	--config-settings cmake.define.HESSKERN_WERROR=ON .
	touch $@

sanitize: $(SANITIZED)/installed
	nm -D $(SANITIZED)/hesskern/_core*.so | grep -q __asan_init
	LD_PRELOAD="$$($(or $(CXX),g++) -print-file-name=libasan.so) $$($(or $(CXX),g++) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc PYTHONPATH=$(SANITIZED) \
	$(RUN) pytest --capture=sys -k "$(IN_CPP)" $(PYTEST_ARGS) $(KERNEL_TESTS) \
	tests/backends/cuda/test_assembly.py tests/training/test_gpu_group_runs.py::test_every_method

# The source distribution, and the wheel built from it.
dist: tools
	rm -rf dist
	$(RUN) build --outdir dist .

# The wheel with its required dependencies and nothing else.
check-dist: dist
	rm -rf build/wheel && $(BIN)/python -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet dist/*.whl
	build/wheel/bin/hesskern info
	build/wheel/bin/hesskern demo

# New versions of everything, within what pyproject.toml allows.
lock:
	PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= $(PYTHON) tools/lock.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

