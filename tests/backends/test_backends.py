"""The registry of backends, and their kernels against each other."""

from __future__ import annotations

import json

import numpy as np
import problems
import pytest
from looped import few_quick

import hesskern as hk
from hesskern import backends
from hesskern.backends.data import Data
from hesskern.backends.protocol import Job, Update, Watch


def test_names_and_default(monkeypatch):
    monkeypatch.delenv("HESSKERN_BACKEND", raising=False)
    assert backends.names() == ("cpp", "numba", "numpy", "cuda")
    assert backends.resolve() == "cpp"
    assert backends.get().name == "cpp"
    assert backends.get("numpy").name == "numpy"
    assert backends.get("numpy") is backends.get("numpy")


def test_use_backend_and_its_block(monkeypatch):
    monkeypatch.delenv("HESSKERN_BACKEND", raising=False)
    with hk.use_backend("numpy"):
        assert backends.resolve() == "numpy"
        with hk.use_backend("cpp"):
            assert backends.resolve() == "cpp"
        assert backends.resolve() == "numpy"
    assert backends.resolve() == "cpp"
    hk.use_backend("numpy")
    try:
        assert backends.resolve() == "numpy"
    finally:
        hk.use_backend(None)
    assert backends.resolve() == "cpp"


def test_the_block_ends_after_an_error(monkeypatch):
    monkeypatch.delenv("HESSKERN_BACKEND", raising=False)
    with pytest.raises(RuntimeError, match="inside"), hk.use_backend("numpy"):
        raise RuntimeError("inside")
    assert backends.resolve() == "cpp"


def test_order_of_the_choices(monkeypatch):
    monkeypatch.setenv("HESSKERN_BACKEND", "numpy")
    assert backends.resolve() == "numpy"
    with hk.use_backend("cpp"):
        assert backends.resolve() == "cpp"
        assert backends.resolve("numpy") == "numpy"
    for value in ("cpp", ""):
        monkeypatch.setenv("HESSKERN_BACKEND", value)
        assert backends.resolve() == "cpp"


@pytest.mark.parametrize("name", ["fortran", "CPP", "", 3])
def test_unknown_names_are_refused_and_change_nothing(name):
    before = backends.resolve()
    with pytest.raises(ValueError, match=r"backend is .*expected one of 'cpp', 'numba', 'numpy'"):
        hk.use_backend(name)
    assert backends.resolve() == before
    with pytest.raises(ValueError, match=r"expected one of 'cpp', 'numba', 'numpy'"):
        hk.SquaredLoss(np.ones((2, 2)), np.ones((2, 1)), backend=name)


def test_an_unknown_name_in_other_calls():
    problem = problems.normal([2, 3, 1], 4)
    net, loss = problem.network(), problem.loss()
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        net.forward(problem.X, backend="gpu")
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        hk.fit(net, loss, lr=0.1, max_steps=1, backend="gpu")


def test_the_variable_in_a_fresh_process(python):
    script = "import json, hesskern as hk; print(json.dumps(hk.info()['backend']))"
    for value, expected in [(None, "cpp"), ("numpy", "numpy")]:
        done = python(script, HESSKERN_BACKEND=value)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == expected
    done = python(script, HESSKERN_BACKEND="cuda9")
    assert done.returncode != 0
    assert "HESSKERN_BACKEND is 'cuda9'; expected one of 'cpp', 'numba', 'numpy'" in done.stderr


def test_the_choice_is_obeyed(monkeypatch):
    """Every door leads to the backend that was asked for."""
    problem = problems.normal([2, 3, 1], 4)
    reference = type(backends.get("numpy"))
    called = []
    for kernel in ("forward", "squared_residual", "gradient", "descent", "product_svd"):
        original = getattr(reference, kernel)

        def spy(self, *arguments, _name=kernel, _original=original, **options):
            called.append(_name)
            return _original(self, *arguments, **options)

        monkeypatch.setattr(reference, kernel, spy)
    net, loss = problem.network(), problem.loss()
    net.forward(problem.X, backend="numpy")
    hk.fit(net, loss, lr=0.1, max_steps=1, backend="numpy")
    assert called == ["forward", "descent"]
    with hk.use_backend("numpy"):
        loss(net)
        loss.gradient(net)
        loss.hessian(net, params=[1]).cond()
    assert called == ["forward", "descent", "squared_residual", "gradient", "product_svd"]
    called.clear()
    with hk.use_backend("cpp"):
        loss.gradient(net)
    assert called == []


SIZES = [
    ([1, 1], 1),
    ([3, 5, 2], 4),
    ([17, 33, 9], 21),  # no multiple of any vector length
    ([16, 64, 8, 32], 48),
    ([300, 330, 290], 270),  # every product above the BLAS threshold
    ([64, 64, 64], 65),  # around it
    ([2, 500, 3], 4000),  # several chunks of samples
    ([90, 3, 2, 80], 700),
]


COMPILED = ["cpp", "numba"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("widths", "samples"), SIZES)
@pytest.mark.parametrize("name", COMPILED)
def test_kernels_agree(dtype, name, widths, samples, bias):
    compiled, reference = backends.get(name), backends.get("numpy")
    problem = problems.normal(widths, samples, bias=bias)
    net = problem.network(dtype)
    X, Y = problem.X.astype(dtype), problem.Y.astype(dtype)
    column = np.random.default_rng(0).standard_normal(samples).astype(dtype)
    tolerance = compiled.tolerance[dtype]

    def same(ours, theirs):
        theirs = np.asarray(theirs)
        assert np.asarray(ours).dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1.0, np.abs(theirs).max()))

    same(compiled.forward(net, X), reference.forward(net, X))
    for data in (Data(X, None, Y, 0.0), Data(X, column, Y, 1.5)):
        same(compiled.squared_residual(net, data), reference.squared_residual(net, data))
        for scale in (1.0, 0.375):
            ours, theirs = compiled.gradient(net, data, scale), reference.gradient(net, data, scale)
            same(ours[0], theirs[0])
            same(ours[1], theirs[1])


RULES = [
    {"update": Update(0.0, False, 0.25), "every": 1, "batch": 0},
    {"update": Update(0.5, False, 0.0), "every": 3, "batch": 0},
    {"update": Update(0.5, True, 0.1), "every": 2, "batch": 3},
]


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(
    ("widths", "samples", "rule"),
    # All rules with each size at length; quickly each size, one or two rules each.
    few_quick([pytest.param(*size, rule) for size in SIZES for rule in RULES], 12),
)
@pytest.mark.parametrize("compiled", COMPILED)
def test_descents_agree(dtype, widths, samples, rule, ensemble, compiled):
    """Seven steps in two pieces, with all that is seen along the way, and the state handed from one to the next."""
    problem = problems.normal(widths, samples, bias=True)
    net = problem.network(dtype)
    X, Y = problem.X.astype(dtype), problem.Y.astype(dtype)
    column = np.random.default_rng(0).standard_normal(samples).astype(dtype)
    batch = min(rule["batch"], samples)
    small = sum(w.size for w in net.weights) < 300
    watch = Watch(rule["every"], True, dtype == "float64" and small, tuple(range(1, len(net.weights))))
    order, ends = (np.arange(7 * batch) * 5 % samples, batch * np.arange(1, 8)) if batch else (None, None)
    seen = {}
    for name in (compiled, "numpy"):
        backend = backends.get(name)
        data, all_samples = Data(X, column, Y, 1.5), Data(X, None, Y, 0.0) if batch else None
        options = {"scale": 0.5, "rtol": -1.0, "update": rule["update"], "watch": watch, "ensemble": ensemble}
        first, second = (backend.descent(net, data, all_samples, batch, **options) for _ in range(2))
        arrays = {kind: np.empty(7) for kind in ("losses", "batch_losses", "gradient_norms", "sharpness")}
        if not batch:
            arrays["batch_losses"] = None
        if not watch.sharpness:
            arrays["sharpness"] = None
        rates, scales = np.full(7, 0.02 / (samples * max(widths))), np.full(7, 0.25)
        for start, stop, descent in ((0, 3, first), (3, 7, second)):
            if descent is second:
                second.restore(first.save())
            part = slice(start, stop)
            own = None if order is None else order[batch * start :]
            own_ends = None if ends is None else ends[part] - batch * start
            records = [None if array is None else array[part] for array in arrays.values()]
            job = Job(rates[part], scales[part], own, own_ends, *records)
            assert backend.advance([descent], [job], 2) == [("running", stop - start)]
            assert descent.steps == stop
        if batch:
            arrays["losses"] = arrays["losses"][:: rule["every"]]  # in between either may leave it out
        seen[name] = arrays | {"parameters": second.parameters(), "growth": np.array(second.growth)}
        second.step_back()
        assert second.steps == 6
        seen[name]["before"] = second.parameters()
    tolerance = backends.get(compiled).tolerance[dtype]
    for key, theirs in seen["numpy"].items():
        if theirs is not None:
            scale = np.nanmax(np.abs(theirs), initial=1.0)
            # The growth is that of norms, from a power iteration that stops at two digits.
            atol = tolerance * scale if key != "growth" else 0.05 * scale
            np.testing.assert_allclose(seen[compiled][key], theirs, rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", backends.host_names())
def test_tolerances_are_stated(name):
    tolerance = backends.get(name).tolerance
    assert set(tolerance) == {"float32", "float64"}
    # Far below what a wrong formula gives, above a few rounding units.
    assert 1e-15 < tolerance["float64"] < 1e-10
    assert 1e-7 < tolerance["float32"] < 1e-3


NUMBERS = """
import sys
import numpy as np, hesskern as hk
assert hk._core.isa == sys.argv[2], hk._core.isa
rng = np.random.default_rng(0)
found = {}
for dtype in ("float64", "float32"):
    for k, (widths, samples) in enumerate([([3, 5, 2], 4), ([17, 33, 9], 21), ([2, 100, 70, 3], 900), ([90, 80], 70)]):
        net = hk.LinearNetwork.random(widths, seed=k, bias=k % 2 == 0, dtype=np.dtype(dtype).type)
        X, Y = (rng.standard_normal((samples, width)).astype(dtype) for width in (widths[0], widths[-1]))
        loss = hk.SquaredLoss(X, Y, "mean", weight_decay=0.1)
        run = hk.fit(net, loss, lr=0.005, max_steps=20)
        values = [net.forward(X), loss(net), loss.gradient(net), run.network.flatten(), run.history["loss"]]
        if net.num_parameters < 1000:
            values.append(loss.hessian(net, params=[0]).toarray())
        found |= {f"{dtype} {k} {n}": value for n, value in enumerate(values)}
np.savez(sys.argv[1], **found)
"""


def test_every_instruction_set_gives_the_same_numbers(python, tmp_path):
    from hesskern import _core

    results = {}
    for isa in _core.available_isas:
        done = python(NUMBERS, str(tmp_path / f"{isa}.npz"), isa, HESSKERN_ISA=isa)
        assert done.returncode == 0, done.stderr
        results[isa] = np.load(tmp_path / f"{isa}.npz")
    reference = results["baseline"]
    assert len(reference.files) == 2 * (4 * 5 + 2)
    for isa, found in results.items():
        for key in reference.files:
            # Fused multiply-adds and another order of sums: some rounding units, as between backends.
            tolerance = backends.get("cpp").tolerance[key.split()[0]]
            scale = max(1.0, np.abs(reference[key]).max())
            np.testing.assert_allclose(
                found[key], reference[key], rtol=0, atol=tolerance * scale, err_msg=f"{isa} {key}"
            )


def test_the_widest_set_is_the_default(python):
    script = "import json, hesskern as hk; i = hk.info(); print(json.dumps([i['isa'], i['available_isas']]))"
    for value in (None, ""):
        done = python(script, HESSKERN_ISA=value)
        assert done.returncode == 0, done.stderr
        chosen, available = json.loads(done.stdout)
        assert chosen == available[0]
        assert available[-1] == "baseline"


@pytest.mark.parametrize("isa", ["avx9", "AVX2", "base"])
def test_a_bad_instruction_set_is_an_import_error(python, isa):
    done = python("import hesskern", HESSKERN_ISA=isa)
    assert done.returncode == 1
    assert f"ImportError: HESSKERN_ISA is '{isa}', but" in done.stderr
    assert "'baseline'" in done.stderr


@pytest.mark.parametrize("samples", [5, 6, 7])
@pytest.mark.parametrize("widths", [[6, 20, 3], [6, 3], [6, 9, 9, 2]])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("compiled", COMPILED)
def test_descents_on_a_diagonal_x(dtype, widths, samples, bias, batch, compiled):
    """The definition multiplies with all of X; three networks, in lanes where the backend has them."""
    found = {}
    for name in (compiled, "numpy"):
        backend = backends.get(name)
        descents, jobs = [], []
        for number in range(3):
            problem = problems.normal(widths, samples, number, bias=bias)
            X = np.zeros((samples, 6), dtype)
            np.fill_diagonal(X, np.arange(1.0, 7))
            column = None if batch else problem.X[:, 0].astype(dtype)
            data = Data(X, column, problem.Y.astype(dtype), 0.5)
            watch = Watch(1, True, dtype == "float64", ())
            options = {"scale": 0.5, "rtol": -1.0, "update": Update(0.5, False, 0.1), "watch": watch}
            descents.append(
                backend.descent(
                    problem.network(dtype), data, data if batch else None, batch, ensemble=not batch, **options
                )
            )
            order, ends = (np.arange(6 * batch) % samples, batch * np.arange(1, 7)) if batch else (None, None)
            losses, norms, sharpness = np.empty(6), np.empty(6), np.empty(6)
            batch_losses = np.empty(6) if batch else None
            known = sharpness if watch.sharpness else None
            jobs.append(Job(np.full(6, 0.002), np.full(6, 0.25), order, ends, losses, batch_losses, norms, known))
        backend.advance(descents, jobs, 1)
        found[name] = [
            (job.losses, job.gradient_norms, job.sharpness, descent.parameters())
            for job, descent in zip(jobs, descents, strict=True)
        ]
    tolerance = backends.get(compiled).tolerance[dtype]
    for ours, theirs in zip(found[compiled], found["numpy"], strict=True):
        for some, expected in zip(ours, theirs, strict=True):
            if expected is not None:
                np.testing.assert_allclose(some, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))
