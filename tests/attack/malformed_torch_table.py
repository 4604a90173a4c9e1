"""The functions of `hesskern.torch` and `hesskern.compat` with good arguments; see `attack.malformed_table`."""

from __future__ import annotations

import torch

import hesskern.compat.autograd_functional
import hesskern.compat.curvlinops
import hesskern.compat.hessian_eigenthings
import hesskern.compat.pyhessian
import hesskern.compat.torch_func
import hesskern.torch

from .malformed_table import KINDS, call

#: Bad values made of a good tensor.
TENSORS = (
    "({}).numpy()", "({}).tolist()", "({}).to(torch.float16)", "({}).to(torch.bfloat16)", "({}).to(torch.cfloat)",
    "({}).to(torch.int64)", "({}).to(torch.bool)", "({}).to(torch.float32)", "({})[:0]", "({})[:-1]", "({})[None]",
    "({})[..., None]", "({}) * torch.nan", "({}) / 0.0", "({}).to_sparse()", "({}).to('meta')", "({}).t()[..., :-1]",
    "torch.nn.Parameter({})", "({}).numpy().astype(object)",
)  # fmt: skip


def torch_namespace() -> dict[str, object]:
    """Return what the lines speak of."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    X, Y = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    return {
        "torch": torch, "ht": hesskern.torch, "compat": hesskern.compat, "model": model, "mse": torch.nn.MSELoss(),
        "XT": X, "YT": Y, "labels": torch.tensor([0, 1, 1, 0, 1, 0]),
        "weights": [p.detach() for p in model.parameters()][::2],
        "function": lambda W: torch.nn.functional.mse_loss(X @ W.T, Y),
    }  # fmt: skip


_MODEL, _MSE, _DATA = ("module", "model"), ("loss function", "mse"), ("data", "(XT, YT)")
_PARAMS = ("torch params?", "['1.weight']")
_COMMON = {"model": _MODEL, "loss_fn": _MSE, "data": _DATA, "params": _PARAMS}

TORCH_TABLE = (
    call("ht.hessian", form=("word", "'matrix'"), **_COMMON),
    call("ht.hvp", v=("tensor vector", "torch.ones(8).double()"), **_COMMON),
    *(call(f"ht.{name}", **_COMMON) for name in ("spectrum", "condition", "sharpness")),
    call("ht.last_layer_hessian", model=_MODEL, data=_DATA, loss=("loss function", "'half_sum'"),
         layer=("torch layer?", "'1'")),
    call("ht.linear_stack", x=("samples", "XT"), weights=("tensors", "weights"), biases=("tensors?", "None")),
    call("compat.torch_func.hessian", func=("function", "function"), argnums=("argnums", "0")),
    call("compat.autograd_functional.hessian", func=("function", "function"),
         inputs=("inputs", "torch.ones(2, 3).double()"), create_graph=("flag", "False"), strict=("flag", "False"),
         vectorize=("flag", "False"), outer_jacobian_strategy=("strategy", "'reverse-mode'")),
    *(call(f"compat.curvlinops.{name}", model_func=("module", "model"), loss_func=("loss function", "mse"),
           params=("torch parameters", "list(model.parameters())"), data=("batches", "[(XT, YT)]"),
           progressbar=("flag", "False"), check_deterministic=("flag", "True"))
      for name in ("HessianLinearOperator", "GGNLinearOperator")),
    call("compat.pyhessian.hessian", model=_MODEL, criterion=("loss function", "mse"), data=("data", "(XT, YT)"),
         dataloader=("none", "None"), cuda=("flag", "False")),
    call("compat.pyhessian.hessian(model, mse, data=(XT, YT), cuda=False).eigenvalues", maxIter=("integer", "10"),
         tol=("least 0", "1e-3"), top_n=("integer", "1")),
)  # fmt: skip

_TENSOR = {"torch.nn.Parameter({})"}
KINDS |= {
    "loss function": {"loss", "H"},  # functions of something else: what they raise is part of the sentence
    "data": set(),
    "torch params": {"['0.weight', '0.weight']"},
    "argnums": {"0", "1", "3", "-1", "np.int8(1)", "()"},
    "torch layer": {"'1'"},
    "torch parameters": set(),
    "tensor": _TENSOR,
    "tensor vector": _TENSOR | {"({}) * torch.nan", "({}) / 0.0", "({})[..., None]"},
    "samples": _TENSOR | {"({})[:0]", "({})[:-1]", "({})[None]", "({}) * torch.nan", "({}) / 0.0"},
    "tensors": set(),
    "function": {"loss", "H", "type", "lambda *a: 1.0"},
    "inputs": set(),
    "strategy": set(),
    "batches": set(),
    "none": {"None"},
}
