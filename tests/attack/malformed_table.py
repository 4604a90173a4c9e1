"""Every public function with good arguments, and bad values for each kind of argument.

Everything is Python source, so that a case is the line that repeats it. `KINDS` says which of the bad values are good
for a kind after all, and a call that takes any other one without an error is wrong.
"""

from __future__ import annotations

import datetime
import io
import operator
import pathlib
import tempfile
from decimal import Decimal
from fractions import Fraction

import numpy as np
import scipy.sparse

import hesskern as hk

FOLDER = tempfile.mkdtemp(prefix="malformed")


def namespace() -> dict[str, object]:
    """Return what the lines speak of: small objects, new ones each time."""
    rng = np.random.default_rng(5)
    W1, W2, b1 = rng.standard_normal((4, 3)), rng.standard_normal((2, 4)), rng.standard_normal(4)
    X, Y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    net, loss = hk.LinearNetwork([W1, W2]), hk.SquaredLoss(X, Y, backend="numpy")
    biased = hk.LinearNetwork([W1, W2], [b1, None])
    H = loss.hessian(net)
    other = hk.LinearNetwork([W1 + 1, W2 - 1])
    path = f"{FOLDER}/net.npz"
    net.save(path)
    return {
        "hk": hk, "np": np, "operator": operator, "Fraction": Fraction, "Decimal": Decimal, "scipy": scipy,
        "datetime": datetime, "io": io, "pathlib": pathlib, "FOLDER": FOLDER, "PATH": path,
        "W1": W1, "W2": W2, "b1": b1, "X": X, "Y": Y, "net": net, "other": other, "loss": loss, "biased": biased,
        "H": H, "P": H.shape[0], "v": rng.standard_normal(H.shape[0]), "V": rng.standard_normal((H.shape[0], 2)),
        "block": loss.hessian(net, [1]), "cross": H.block(0, 1), "kfac": hk.KFAC(net, loss),
        "gn": H.gauss_newton(), "soft": hk.SoftmaxHessian(X, Y, backend="numpy"),
        "spectrum": H.spectrum(), "stack": hk.NetworkStack([np.stack([W1, W1]), np.stack([W2, W2])]),
        "runs": hk.fit_ensemble([net, other], loss, lr=1e-3, max_steps=2),
        "text": lambda a: np.asarray(a).astype(str), "structured": lambda a: np.zeros(np.shape(a), "f8,i4"),
        "masked": lambda a: np.ma.masked_array(a, mask=np.arange(np.size(a)).reshape(np.shape(a)) == 0),
        "unmasked": np.ma.masked_array, "sparse": lambda a: scipy.sparse.csr_matrix(np.atleast_2d(a)),
        "first": lambda a, f: [f(a[0]), *a[1:]],
    }  # fmt: skip


#: Bad values that do not depend on the good one.
PLAIN = (
    "None", "True", "False", "np.True_", "'no'", "''", "'1'", "'cpp'", "b'1'", "object()", "[]", "()", "{}", "{'a': 1}",
    "set()", "{1, 2}", "(k for k in [1, 2])", "lambda *a: 1.0", "0.5", "1.5", "float('nan')", "float('inf')", "-1", "0",
    "1", "3", "-0.5", "2**70", "-2**70", "10**400", "1e308", "1e-320", "Fraction(1, 3)", "Fraction(10**400, 1)",
    "Decimal('1')", "1j", "np.array(1.0)", "np.array(1)", "np.array([])", "np.zeros((0, 3))", "np.ones(3)",
    "np.ones((2, 2))",
    "np.ones((2, 2, 2))", "np.float32(1)", "np.int8(1)", "np.uint64(2**64 - 1)", "np.longdouble(1)", "np.ma.masked",
    "np.ma.masked_array(1.0, mask=True)", "np.datetime64('2020')", "np.timedelta64(1)", "datetime.date(2020, 1, 1)",
    "np.matrix([[1, 2], [3, 4]])", "np.matrix([[1.0, 2.0]])", "range(3)", "[1, [2, 3]]", "[1, 'a']", "[None]", "[[]]",
    "slice(1)", "Ellipsis", "NotImplemented", "type", "hk", "net", "loss", "H", "X", "io.BytesIO()",
    "pathlib.Path('x')",
    "'\\x00'", "'a' * 5000", "np.random.default_rng(0)", "scipy.sparse.eye(3)", "np.zeros(3, 'f8,i4')",
    "memoryview(b'ab')",
    "np.zeros(2, object)", "[net]", "['0.weight', '0.weight']", "[0, 0]", "[True]", "[1.0]", "[-1]", "[2**70]",
)  # fmt: skip

#: Bad values made of a good array.
SPOILED = (
    "masked({})", "unmasked({})", "text({})", "np.asarray({}).astype(object)", "np.asarray({}).astype(complex)",
    "np.asarray({}).astype(np.float16)", "np.asarray({}).astype(np.longdouble)", "np.asarray({}).astype(int)",
    "np.asarray({}).astype(bool)", "np.asarray({}).astype('datetime64[s]')", "np.asarray({}).astype('timedelta64[s]')",
    "structured({})", "sparse({})", "np.asarray({})[:0]", "np.asarray({})[:-1]", "np.asarray({})[..., None]",
    "np.asarray({})[None]", "np.asarray({}) * np.nan", "np.asarray({}) / 0.0", "np.asarray({}).astype(np.float32)",
    "np.asarray({}).astype('S')", "np.asarray({}).T[..., :-1]", "np.asarray({}).tolist()", "np.matrix({})",
    "np.broadcast_to(np.asarray({}), np.shape({}))", "np.asarray({})[::-1]", "memoryview(np.ascontiguousarray({}))",
    "np.asarray({}).astype('>f8')", "np.asfortranarray({})", "(k for k in {})", "dict(enumerate({}))", "iter({})",
)  # fmt: skip

#: Which bad values are good for a kind of argument.
_REALS = {
    "0.5", "1.5", "1", "3", "np.array(1.0)", "np.array(1)", "np.float32(1)", "np.int8(1)", "np.uint64(2**64 - 1)",
    "np.longdouble(1)", "Fraction(1, 3)", "2**70", "1e308", "1e-320",
}  # fmt: skip
_INTEGERS = {"1", "3", "np.int8(1)"}
_ARRAYS = {
    "unmasked({})", "np.asarray({}).tolist()", "np.matrix({})", "np.broadcast_to(np.asarray({}), np.shape({}))",
    "np.asarray({})[::-1]", "memoryview(np.ascontiguousarray({}))", "np.asarray({}).astype('>f8')",
    "np.asfortranarray({})",
}  # fmt: skip
_WIDTHS = {"range(3)", "(k for k in [1, 2])", "{1, 2}"}
KINDS: dict[str, set[str]] = {
    "flag": {"True", "False", "np.True_"},
    "positive": _REALS,
    "least 0": _REALS | {"0"},
    "real": _REALS | {"0", "-1", "-0.5", "-2**70"},
    "integer": _INTEGERS,
    "integer or 0": _INTEGERS | {"0"},
    "steps": _INTEGERS,
    "seed": _INTEGERS | {"0", "2**70", "10**400", "np.uint64(2**64 - 1)"},
    "word": set(),
    "backend": {"'cpp'"},
    "array": _ARRAYS | {"X"},
    "samples array": _ARRAYS | {"X", "np.asarray({})[:-1]"},
    "vector": _ARRAYS | {"X",
                         "np.asarray({})[..., None]", "np.asarray({}).astype(np.float32)", "np.asarray({}).astype(int)",
                         "np.asarray({}).astype(complex)", "np.asarray({}).astype(np.longdouble)", "H",
                         "np.asarray({}).astype(np.float16)", "np.asarray({}) * np.nan", "np.asarray({}) / 0.0",
                         "np.asarray({}).astype(bool)"},  # of H @ v
    "right side": _ARRAYS | {"H", "X", "np.asarray({})[..., None]", "np.asarray({}).astype(np.float32)"},  # of solve
    "out": {"np.matrix({})", "np.asarray({}) * np.nan", "np.asarray({}) / 0.0", "unmasked({})"},
    "arrays": set(),
    "biases": set(),
    "names": set(),
    "widths": {"np.array([1, 2])"},
    "params": {"[0, 0]", "['0.weight', '0.weight']", "range(2)", "np.zeros(2, object)"},
    "net": {"net"},
    "loss": {"loss"},
    "nets": {"[net]", "stack"},
    "path": {"pathlib.Path('x')", "'no'", "'1'", "'cpp'"},
    "record": {"()", "[]"},
    "rate": _REALS | {"memoryview(b'ab')", "lambda *a: 1.0", "np.ones(3)", "range(3)", "[0, 0]", "[1.0]", "H", "loss",
                       "np.zeros(2, object)",
                       "np.matrix([[1, 2], [3, 4]])", "np.ones((2, 2))"},
    "anything": set(PLAIN),
}  # fmt: skip


def call(target: str, /, **arguments: tuple[str, str]) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return an entry: what is called, and for each argument its kind and a good value."""
    return target, arguments


NET, LOSS, PARAMS = ("net", "net"), ("loss", "loss"), ("params?", "[1]")
BACKEND, RECORD = ("backend?", "'numpy'"), ("record", "('loss',)")
_TRAINING = {
    "lr": ("rate", "0.01"), "max_steps": ("steps", "2"), "rtol": ("least 0?", "0.5"), "batch_size": ("integer?", "2"),
    "shuffle": ("flag", "True"), "momentum": ("least 0", "0.5"), "nesterov": ("flag", "True"), "record": RECORD,
    "record_every": ("integer", "1"), "reduce": ("word", "'auto'"), "backend": BACKEND, "progress": ("flag", "False"),
    "checkpoint": ("path?", "FOLDER + '/run.npz'"), "checkpoint_every": ("integer?", "2"), "resume": ("path?", "None"),
}  # fmt: skip

TABLE = (
    call("hk.LinearNetwork", weights=("arrays", "[W1, W2]"), biases=("biases?", "[b1, None]"),
         names=("names?", "['a.weight', 'a.bias', 'b.weight']")),
    call("hk.LinearNetwork.random", widths=("widths", "[3, 4, 2]"), seed=("seed?", "0"), bias=("flag", "False"),
         dtype=("dtype", "np.float64")),
    call("hk.LinearNetwork.from_torch", module=("module", "net.to_torch()")),
    call("hk.LinearNetwork.load", path=("path", "PATH")),
    call("net.save", path=("path", "FOLDER + '/other.npz'")),
    call("net.forward", X=("samples array", "X"), backend=BACKEND),
    call("net.unflatten", vector=("array", "net.flatten()")),
    call("hk.SquaredLoss", X=("array", "X"), Y=("targets", "Y"), kind=("word", "'mean'"),
         weight_decay=("least 0", "0.5"), backend=BACKEND),
    call("loss", net=NET),
    call("loss.gradient", net=NET),
    call("loss.value_and_gradient", net=NET),
    call("loss.hessian", net=NET, params=PARAMS),
    *(call(f"{one}.__matmul__", v=("vector", "v")) for one in ("H", "gn", "kfac")),
    *(call(f"operator.matmul({one}, {{}})", v=("vector", vector)) for one, vector in
      (("H", "v"), ("H", "V"), ("block", "np.ones(8)"), ("kfac", "V"), ("soft", "np.ones(6)"), ("cross",
          "np.ones(8)"))),
    *(call(f"{one}.toarray", out=("out?", f"np.empty({one}.shape)")) for one in ("kfac", "soft", "cross")),
    *(call(f"{one}.toarray", out=("out?", f"np.empty({one}.shape)"), vec=("word", "'column'")) for one in ("H",
    "block")),
    call("H.block", row=("layer", "0"), column=("layer", "1")),
    call("kfac.factors", row=("layer", "0"), column=("layer", "1")),
    *(call(f"{one}.eigh", k=("integer?", "2"), which=("word", "'SA'"), dense=("flag", "True"))
      for one in ("H", "block", "kfac", "soft")),
    *(call(f"{one}.solve", b=("right side", f"np.ones({one}.shape[0])"), damping=("least 0", "0.5"),
           rcond=("least 0?", "0.0")) for one in ("H", "block", "kfac", "soft")),
    *(call(f"{one}.logdet", damping=("positive", "1e4")) for one in ("H", "block", "kfac", "soft")),
    call("hk.KFAC", net=NET, loss=LOSS, params=PARAMS, separate_bias=("flag", "True")),
    call("hk.SoftmaxHessian", features=("array", "X"), logits=("targets", "Y"), bias=("flag", "True"),
         sample_weights=("array?", "np.ones(6)"), backend=BACKEND),
    call("hk.Spectrum", values=("values", "[1.0, 2.0]"), multiplicities=("multiplicities", "[1, 2]")),
    call("spectrum.count", tolerance=("least 0", "0.5")),
    call("spectrum.histogram", bins=("bins", "5")),
    call("spectrum.shifted", by=("real", "0.5")),
    call("hk.NetworkStack", weights=("arrays", "[np.stack([W1, W1]), np.stack([W2, W2])]"),
         biases=("biases?", "[np.stack([b1, b1]), None]")),
    call("runs.network", index=("index", "0")),
    call("operator.getitem(stack, {})", index=("index", "0")),
    call("hk.fit", net=NET, loss=LOSS, seed=("seed", "0"), **_TRAINING),
    call("hk.fit_ensemble", nets=("nets", "[net, other]"), loss=("loss", "loss"), seed=("seeds", "0"),
         threads=("integer?", "2"), **_TRAINING),
    call("hk.explain", candidate=("candidate", "H.toarray()"), net=NET, loss=LOSS, params=("params?", "None"),
         quantity=("word?", "None"), trajectory=("trajectory", "[other]"), lr=("positive?", "0.1"),
         batch_size=("integer?", "2")),
    call("hk.validate", net=NET, loss=LOSS, backends=("backends?", "['numpy']"), problems=("problems?", "None"),
         directions=("integer", "1"), dense_size=("integer", "5"), seed=("seed", "0"), progress=("flag", "False")),
    call("hk.predicted_rank", widths=("widths", "[3, 4, 2]"), N=("large integer", "6")),
    call("hk.use_backend", name=("backend?", "'numpy'")),
)  # fmt: skip

KINDS |= {
    "targets": _ARRAYS | {"X"},
    "layer": {"0", "1", "np.int8(1)"},
    "index": {"0", "1", "-1", "np.int8(1)", "slice(1)"},
    "dtype": {"H", "X", "scipy.sparse.eye(3)",
              "np.ones(3)", "np.ones((2, 2))", "np.ones((2, 2, 2))", "np.array(1.0)", "np.array([])",
    "np.zeros((0, 3))",
              "float('nan')", "np.float32(1)", "net"},
    "module": set(),
    "values": {*_ARRAYS, "memoryview(b'ab')",
               "np.asarray({}) * np.nan", "np.asarray({}) / 0.0", "np.asarray({}).astype(int)", "[0, 0]",
               "np.asarray({}).astype(np.float32)", "np.asarray({}).astype(np.float16)",
               "np.asarray({}).astype(np.longdouble)"},
    "multiplicities": {*_ARRAYS, "memoryview(b'ab')", "np.asarray({}).astype(int)", "[0, 0]"},
    "bins": {"1", "3", "np.int8(1)", "range(3)"},
    "seeds": KINDS["seed"] | {"[0, 0]", "[1, 2]", "np.zeros(2, object)"},
    "candidate": {*_REALS, *SPOILED, "memoryview(b'ab')", "np.uint64(2**64 - 1)", "0", "-1", "-0.5", "-2**70",
    "10**400", "float('nan')", "float('inf')", "'1'", "np.ones(3)", "np.ones((2, 2))",
                  "X", "H", "Fraction(10**400, 1)", "range(3)", "[0, 0]", "[1.0]", "[-1]", *_ARRAYS, "[True]",
                  "np.matrix([[1, 2], [3, 4]])", "np.matrix([[1.0, 2.0]])"},
    "trajectory": {"[]", "()", "[net]", "net"},
    "backends": set(),
    "problems": set(),
    "large integer": _INTEGERS | {"2**70", "10**400", "np.uint64(2**64 - 1)"},
}  # fmt: skip
