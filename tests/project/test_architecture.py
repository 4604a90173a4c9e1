"""The layers of the house, read from the sources: imports point one way, and importing is cheap."""

from __future__ import annotations

import ast
import functools
import json
import re

import pytest
from checkout import HELPERS, ROOT
from looped import each

PACKAGE, CSRC = ROOT / "hesskern", ROOT / "csrc"
MODULES = sorted(PACKAGE.rglob("*.py"))
OPTIONAL = {"torch", "numba", "matplotlib", "tqdm", "cuda"}
TESTING = {"tests", "pytest", "hypothesis", "mpmath"} | {path.stem for path in HELPERS.glob("*.py")}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


def type_checking_only(tree):
    """Every node inside `if TYPE_CHECKING:`."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }


@functools.cache
def imports(path, *, top_level_only=False, types=False):
    """Pairs (module, name or None) that a module imports: `import a.b`, `from a.b import name`; at run time only?"""
    tree = parsed(path)
    skipped = set() if types else type_checking_only(tree)
    if top_level_only:
        skipped |= {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for inner in ast.walk(node)
        }
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def packages(path, **options):
    """Top-level packages that a module imports."""
    return {module.split(".")[0] for module, _ in imports(path, **options)}


def is_module(name):
    base = ROOT.joinpath(*name.split("."))
    return name == "hesskern._core" or base.with_suffix(".py").exists() or (base / "__init__.py").exists()


def ours(path, **options):
    """The package's own modules that a module imports; `from hesskern import checks` imports hesskern._base.checks."""
    found = set()
    for module, name in imports(path, **options):
        if module.split(".")[0] == "hesskern":
            full = f"{module}.{name}"
            found.add(full if name and is_module(full) else module)
    return found


#: Packages and public modules, lowest first: each imports only what stands before it, at run time and for types.
ORDER = [
    "_base", "linalg", "backends", "torch_modules", "numba", "network", "reductions", "datasets", "curvature", "losses",
    "training", "torch", "compat", "explanation", "validation", "demo", "plot", "cli", "__init__", "__main__",
]  # fmt: skip
LONGEST_CHAIN = 9


def name_of(path):
    """`hesskern.network.parameters` for its file; `hesskern.network` for its `__init__.py`."""
    parts = ["hesskern", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def package_of(module):
    """Which entry of `ORDER` a module belongs to."""
    return [*module.split("."), "__init__"][1]


@functools.cache
def edges():
    """Pairs of modules of which the first imports the second, anywhere in its text."""
    return {
        (name_of(path), imported)
        for path in MODULES
        for imported in ours(path, types=True)
        if imported not in ("hesskern._core", name_of(path))
    }


BACKENDS = [path for path in MODULES if path.parent.name == "backends" and "\nBACKEND = " in path.read_text()]
JITTED = [path for path in MODULES if path.parent.name in ("numba", "numba_kernels")]
CUDA = [path for path in MODULES if path.parent.name == "cuda"]
TORCH = [path for path in MODULES if {"torch", "torch_modules", "compat"} & set(path.relative_to(PACKAGE).parts)]


def test_the_reader_sees_imports():
    assert "hesskern._core" in ours(PACKAGE / "backends" / "cpp_backend.py")
    assert "hesskern.backends.protocol" in ours(PACKAGE / "backends" / "cpp_backend.py")
    assert "hesskern.losses.least_squares" in ours(PACKAGE / "training" / "fit.py")
    assert "scipy" in packages(PACKAGE / "backends" / "cpp_backend.py")
    assert "scipy" not in packages(PACKAGE / "backends" / "cpp_backend.py", top_level_only=True)
    assert ("hesskern.network.linear_network", "hesskern.backends") in edges()
    assert {path.stem for path in BACKENDS} == {"cpp_backend", "numba_backend", "numpy_backend"}


def test_imports_point_one_way():
    upward = [
        f"{module} imports {imported}"
        for module, imported in sorted(edges())
        if package_of(imported) != "_interrupted_start"  # before everything: Ctrl-C while the package is imported
        and ORDER.index(package_of(imported)) > ORDER.index(package_of(module))
    ]
    assert upward == []


def test_the_folders_of_explanation_import_one_way():
    """What is given, then the search among it, then the answer."""
    order = ["given", "search", "answer", "entry", "explanation"]  # the last one is the package itself
    folders = [(first.split(".")[1:], second.split(".")[1:]) for first, second in sorted(edges())]
    inside = [
        (a[-1] if len(a) < 2 else a[1], b[-1] if len(b) < 2 else b[1])
        for a, b in folders
        if a[0] == b[0] == "explanation"
    ]
    assert {name for pair in inside for name in pair} == set(order)
    assert [pair for pair in inside if order.index(pair[1]) > order.index(pair[0])] == []


def on_a_circle(pairs):
    """Modules that import themselves by way of others, or import one that does."""
    remaining = {module: {imported for first, imported in pairs if first == module} for module, _ in pairs}
    while True:
        known = set(remaining)
        free = [module for module, imported in remaining.items() if not imported & known]
        if not free:
            return sorted(remaining)
        for module in free:
            del remaining[module]


def test_the_reader_sees_a_circle():
    assert on_a_circle({("a", "b"), ("b", "c"), ("c", "b"), ("d", "e")}) == ["a", "b", "c"]


def test_no_module_imports_itself_by_way_of_others():
    assert on_a_circle(edges()) == []


def test_no_module_of_the_benchmarks_imports_itself_by_way_of_others():
    pairs = set()
    for path in sorted((ROOT / "bench").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for module, imported in imports(path, types=True):
            full = f"{module}.{imported}"
            pairs.add((name, full if imported and is_module(full) else module))
    assert ("bench.runner", "bench.contest") in pairs
    assert (
        on_a_circle({(first, second) for first, second in pairs if second.startswith("bench") and first != second})
        == []
    )


def test_no_class_name_twice():
    names = {}
    for path in [*MODULES, *sorted((ROOT / "bench").rglob("*.py"))]:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                names.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in names.items() if len(where) > 1} == {}


def test_few_floors():
    below = {}
    for module, imported in edges():
        if package_of(module) != package_of(imported):
            below.setdefault(package_of(module), set()).add(package_of(imported))

    @functools.cache
    def chain(package):
        return (*max((chain(lower) for lower in below.get(package, ())), key=len, default=()), package)

    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    longest = max((tuple(name for name in chain(package) if name in folders) for package in ORDER), key=len)
    assert len(longest) <= LONGEST_CHAIN, longest


def test_the_root_holds_few_modules():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= set(ORDER) | {"_interrupted_start"}
    assert len(list(PACKAGE.glob("*.py"))) <= 6


@each("path", BACKENDS)
def test_a_backend_imports_no_other(path):
    others = {name_of(other) for other in BACKENDS if other != path}
    assert not any(module in others or "cuda" in module for module in ours(path))
    if path.stem != "numba_backend":
        assert not any("numba_kernels" in module for module in ours(path))


@each("path", JITTED)
def test_jitted_code_stands_alone(path):
    """It is a second implementation: nothing of the first goes into it."""
    own = ("hesskern.numba", "hesskern.backends.numba_kernels", "hesskern._base")
    assert all(module.startswith(own) for module in ours(path))


@each("path", CUDA)
def test_the_cuda_backend_stands_alone(path):
    shared = {f"hesskern.backends.{name}" for name in ("data", "hidden_units", "protocol")}
    own = ("hesskern.backends.cuda", "hesskern._base")
    assert all(module in shared or module.startswith(own) for module in ours(path))


def used_of_the_extension(path):
    """What a module takes from `_core`."""
    nodes = list(ast.walk(parsed(path)))
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "_core"}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "hesskern._core":
            found |= {alias.name for alias in node.names}
    return found


@each("path", MODULES)
def test_kernels_are_called_by_one_backend_only(path):
    if path.name == "cpp_backend.py":
        assert {"forward", "Descent"} <= used_of_the_extension(path)
    elif path.name == "interrupt.py":
        assert used_of_the_extension(path) == {"count_left_call"}  # the extension waits for calls at the end of Python
    else:
        assert used_of_the_extension(path) <= {"version", "isa", "available_isas"}


def test_the_registry_knows_no_backend_before_it_is_asked_for():
    assert ours(PACKAGE / "backends" / "__init__.py") == {"hesskern.backends.protocol", "hesskern._base.checks"}


#: What does not iterate, so that an infinity does no harm.
DIRECT = {"norm", "LinAlgError"}


@each("path", MODULES)
def test_lapack_is_called_in_one_place(path):
    """Where matrices are checked for NaN and infinities, and Ctrl-C works."""
    if path.stem in ("decompositions", "product_svd") or path in TORCH:
        pytest.skip("it is that place, or checks itself")
    calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    lapack = [ast.unparse(call) for call in calls if re.search(r"(^|\.)(np\.linalg|lapack)\.", ast.unparse(call))]
    assert {call.split(".")[-1] for call in lapack} <= DIRECT
    # The norm of order two of a matrix is a singular value.
    assert not re.search(r"linalg\.norm\(.*, 2\)", path.read_text())


@each("path", MODULES)
def test_production_code_imports_no_test(path):
    assert not packages(path) & TESTING


@each("path", MODULES)
def test_optional_packages_are_imported_where_they_are_used(path):
    if path.stem in ("plot", "numba_backend") or path in JITTED + CUDA + TORCH:
        pytest.skip("loaded only by those who ask for it by name")
    assert not packages(path, top_level_only=True) & OPTIONAL


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


KERNELS = sorted((CSRC / "kernels").rglob("*.[hc]*"))
BINDINGS = sorted((CSRC / "bindings").rglob("*.[hc]*"))


@each("path", KERNELS)
def test_kernels_know_no_python(path):
    for header in includes(path):
        assert not re.search(r"python|pybind11|numpy|bindings", header, flags=re.IGNORECASE), header
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    assert not re.search(r"\bPy[A-Z_]\w*|\bpy::|pybind11", code)


def test_bindings_are_where_python_is():
    assert len(KERNELS) >= 5
    assert any("pybind11/pybind11.h" in includes(path) for path in BINDINGS)
    for path in BINDINGS:
        inner = {header for header in includes(path) if header.startswith("kernels/")}
        # Kernels are reached through the table of the chosen instruction set, never by their templates.
        assert inner <= {"kernels/table.hpp", "kernels/blas.hpp", "kernels/network.hpp"}, path.name


@each("path", KERNELS)
def test_what_is_compiled_per_instruction_set_shares_no_inline_code(path):
    """An inline function of the standard library, compiled for AVX-512, may be the copy that the linker keeps."""
    if path.name in ("dispatch.cpp", "dispatch.hpp"):
        pytest.skip("compiled once")
    heavy = {"algorithm", "vector", "string", "memory", "functional", "map", "iostream", "numeric", "complex", "cmath"}
    assert not heavy & set(includes(path))


def test_no_global_instruction_set():
    assert not re.search(r"-march=native|-mtune=native", (ROOT / "CMakeLists.txt").read_text())


IMPORTED = """
import json, sys, time
began = time.process_time()  # not the clock: the machine may be busy
import numpy, scipy.linalg
needed = time.process_time()
import hesskern
ended = time.process_time()
print(json.dumps([ended - began, ended - needed, sorted(sys.modules)]))
"""


def test_import_is_quick_and_loads_nothing_heavy(python):
    loaded, quick = set(), False
    for _ in range(7):  # the best of several: the machine may be busy
        done = python(IMPORTED)
        assert done.returncode == 0, done.stderr
        took, own, modules = json.loads(done.stdout)
        loaded |= set(modules)
        # NumPy and SciPy alone may take longer than that on a slow or busy machine, which slows them and us alike.
        quick = took < 0.3 or own < 0.1 or own < 0.5 * (took - own)
        if quick:
            break
    assert not loaded & {"torch", "numba", "matplotlib", "scipy.sparse", "tqdm", "cuda", "jax"}
    assert "numpy" in loaded
    assert quick, f"{took:.2f} s, of which {own:.2f} s are its own"


#: What a user may import from the package: adding or losing a name is a decision.
CLASSES = {
    "KFAC", "Condition", "CrossBlock", "Ensemble", "Explanation", "Hessian", "KroneckerHessian", "LinearNetwork",
    "NetworkStack", "PredictedRank", "Reduction", "Run", "SoftmaxHessian", "Spectrum", "SquaredLoss",
    "ValidationReport",
}  # fmt: skip
FUNCTIONS = {"explain", "fit", "fit_ensemble", "info", "predicted_rank", "use_backend", "validate"}


def test_public_names():
    import hesskern as hk

    assert sorted(hk.__all__) == sorted(CLASSES | FUNCTIONS | {"__version__", "datasets"})
    for name in CLASSES:
        assert isinstance(getattr(hk, name), type)
        assert getattr(hk, name).__name__ == name
    for name in FUNCTIONS:
        assert callable(getattr(hk, name))
        assert not isinstance(getattr(hk, name), type) or name == "use_backend"
    for name in CLASSES | FUNCTIONS:
        assert len(getattr(hk, name).__doc__) > 40, name
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", hk.__version__)
    assert hk.datasets.two_layer_case().X.shape == (5, 5)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hk.nothing  # noqa: B018
