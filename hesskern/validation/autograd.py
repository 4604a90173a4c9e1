"""The witness asked for: PyTorch's autograd in float64, on an ``nn.Sequential`` as a user writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hesskern._base.cached import cached_property
from hesskern._base.optional_torch import TorchUnavailableError, load_torch
from hesskern.validation.case import Matrix, Training, Trajectory, ValidationCase

#: Multiply-adds of one pass below which starting a second thread takes longer than the work.
_THREADED_WORK = 5_000_000
#: Most multiply-adds of all backward passes for a dense matrix, about two seconds.
_DENSE_WORK = 5e9
#: Numbers in one batch of backward passes.
_BATCH = 200_000
#: Most numbers in a Jacobian for which ``J.T J`` is formed.
_LARGEST_JACOBIAN = 2e7


def torch() -> Any:
    """Return PyTorch; ImportError with one sentence if it cannot be loaded."""
    try:
        return load_torch()
    except TorchUnavailableError as error:
        if "not installed" in str(error):
            raise ImportError(
                'validate compares with PyTorch, which is not installed; install it with pip install "hesskern[torch]".'
            ) from error
        raise ImportError(f"validate compares with PyTorch. {error}") from error


class AutogradWitness:
    """Values and derivatives of one problem from PyTorch.

    The loss uses ``nn.MSELoss``. ``torch.norm(error) ** 2`` is the same number, but its second derivative is NaN where
    the residual is exactly zero.
    """

    name = "autograd"
    unit = float(np.finfo(np.float64).eps) / 2

    def __init__(self, problem: ValidationCase) -> None:
        self.problem, self._torch = problem, torch()
        with self._mode():
            self._X, self._Y = self._tensor(problem.X), self._tensor(problem.Y)
            self._module = self._new_module()

    def _tensor(self, array: Matrix) -> Any:
        # Copied: PyTorch warns about read-only memory and refuses negative strides.
        return self._torch.tensor(np.array(array), dtype=self._torch.float64, device="cpu")

    @contextlib.contextmanager
    def _mode(self) -> Iterator[None]:
        """Turn gradients on, even if the caller has switched them off; use one thread where this is faster."""
        threads = self._torch.get_num_threads()
        if self.problem.work < _THREADED_WORK:
            self._torch.set_num_threads(1)
        try:
            with self._torch.inference_mode(False), self._torch.enable_grad():
                yield
        finally:
            self._torch.set_num_threads(threads)

    def _new_module(self) -> Any:
        nn, layers = self._torch.nn, []
        for weight, bias in zip(self.problem.weights, self.problem.biases, strict=True):
            # Without the random start, which would draw from the caller's generator.
            layer = nn.utils.skip_init(
                nn.Linear,
                weight.shape[1],
                weight.shape[0],
                bias=bias is not None,
                device="cpu",
                dtype=self._torch.float64,
            )
            layer.weight = nn.Parameter(self._tensor(weight))
            if bias is not None:
                layer.bias = nn.Parameter(self._tensor(bias))
            layers.append(layer)
        return nn.Sequential(*layers)

    @property
    def _parameters(self) -> list[Any]:
        return list(self._module.parameters())

    def _loss(self, module: Any, rows: Any = slice(None), *, decayed: bool = True) -> Any:
        error = {
            "half_sum": lambda a, b: 0.5 * self._torch.nn.MSELoss(reduction="sum")(a, b),
            "sum": self._torch.nn.MSELoss(reduction="sum"),
            "mean": self._torch.nn.MSELoss(),
        }[self.problem.kind](module(self._X[rows]), self._Y[rows])
        if decayed and self.problem.decay:
            error = error + 0.5 * self.problem.decay * sum((p**2).sum() for p in module.parameters())
        return error

    def _flat(self, parts: Any) -> Any:
        """Return one vector; a parameter that the quantity does not depend on has zeros."""
        return self._torch.cat(
            [
                (self._torch.zeros_like(parameter) if part is None else part).reshape(-1)
                for part, parameter in zip(parts, self._parameters, strict=True)
            ]
        )

    def _grad(self, of: Any, **options: Any) -> Any:
        return self._torch.autograd.grad(of, self._parameters, allow_unused=True, **options)

    def prediction(self) -> Matrix:
        """Return the predictions (N, o)."""
        with self._mode():
            return self._plain(self._module(self._X))

    def loss(self) -> float:
        """Return the loss."""
        with self._mode():
            return float(self._loss(self._module).detach())

    @cached_property
    def _differentiable_gradient(self) -> Any:
        return self._flat(self._grad(self._loss(self._module), create_graph=True))

    def gradient(self) -> Matrix:
        """Return the gradient (P,)."""
        with self._mode():
            return self._plain(self._differentiable_gradient)

    @property
    def dense(self) -> bool:
        """Whether a dense Hessian takes no more than about two seconds."""
        return 6.0 * self.problem.work * self.problem.size <= _DENSE_WORK

    @property
    def dense_jacobian(self) -> bool:
        """Whether ``J.T J`` can be formed."""
        rows = self.problem.Y.size
        return rows * self.problem.size <= _LARGEST_JACOBIAN and 2.0 * self.problem.work * rows <= _DENSE_WORK

    @cached_property
    def _hessian(self) -> Matrix:
        with self._mode():
            return self._jacobian(self._differentiable_gradient)

    def _jacobian(self, outputs: Any) -> Matrix:
        """Return the derivatives of a vector, row by row, in batches of backward passes that fit in the cache."""
        jacobian = np.empty((len(outputs), self.problem.size))
        count = max(1, _BATCH // (self.problem.samples * max(self.problem.net.widths) + self.problem.size))
        for start in range(0, len(outputs), count):
            rows = min(count, len(outputs) - start)
            seeds = self._torch.zeros((rows, len(outputs)), dtype=self._torch.float64, device="cpu")
            seeds[:, start : start + rows] = self._torch.eye(rows, dtype=self._torch.float64, device="cpu")
            parts = self._grad(outputs, grad_outputs=seeds, retain_graph=True, is_grads_batched=True)
            at = 0
            for part, parameter in zip(parts, self._parameters, strict=True):
                size = parameter.numel()
                flat = 0.0 if part is None else self._plain(part.reshape(rows, -1))
                jacobian[start : start + rows, at : at + size] = flat
                at += size
        return jacobian

    def _second(self, scalar: Any) -> Matrix:
        """Return the gradient of a function of the gradient; for a network of depth 1 the function may be constant."""
        if not scalar.requires_grad:
            return np.zeros(self.problem.size)
        return self._plain(self._flat(self._grad(scalar, retain_graph=True)))

    def hessian(self) -> Matrix:
        """Return the dense Hessian, row by row."""
        return self._hessian

    @cached_property
    def _gauss_newton(self) -> Matrix:
        with self._mode():
            jacobian = self._jacobian(self._module(self._X).reshape(-1))
        return self._scale * (jacobian.T @ jacobian)

    @property
    def _scale(self) -> float:
        return {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / self.problem.Y.size}[self.problem.kind]

    def gauss_newton(self) -> Matrix:
        """Return ``J.T J`` times the scale of the loss, J being the Jacobian of the predictions."""
        return self._gauss_newton

    def product(self, vector: Matrix) -> Matrix:
        """Return H v by double backward."""
        with self._mode():
            return self._second(self._differentiable_gradient @ self._tensor(vector))

    def gauss_newton_product(self, vector: Matrix) -> Matrix:
        """Return ``J.T (J v)``: the transpose of a backward pass, then a backward pass."""
        with self._mode():
            outputs = self._module(self._X)
            seed = self._torch.zeros_like(outputs, requires_grad=True)
            pulled = self._flat(self._grad(outputs, grad_outputs=seed, create_graph=True))
            (moved,) = self._torch.autograd.grad(pulled, seed, self._tensor(vector), retain_graph=True)
            return self._scale * self._plain(self._flat(self._grad(outputs, grad_outputs=moved)))

    def train(self, how: Training) -> Trajectory:
        """Return the trajectory of ``torch.optim.SGD`` from these weights."""
        with self._mode():
            module = self._new_module()
            optimizer = self._torch.optim.SGD(
                module.parameters(),
                lr=how.lr,
                momentum=how.momentum,
                nesterov=how.nesterov,
                weight_decay=self.problem.decay,
            )

            def theta() -> Matrix:
                return self._plain(self._torch.cat([p.detach().reshape(-1) for p in module.parameters()]))

            thetas, losses = [theta()], []
            for rows in how.batches(self.problem.samples):
                losses.append(float(self._loss(module).detach()))
                optimizer.zero_grad()
                self._loss(module, rows, decayed=False).backward()
                optimizer.step()
                thetas.append(theta())
        return Trajectory(thetas, losses)

    @staticmethod
    def _plain(tensor: Any) -> Matrix:
        array: Matrix = tensor.detach().numpy().copy()
        return array
