"""The researcher's code, in PyTorch: the training loop of the question and its Hessian, row by row.

It is the code as posted, so that the demo compares with the original. Three lines of the post cannot run and are fixed:
``lr`` and ``loss_fn`` were not defined, and the gradient was taken of ``fc2.weight`` alone, then indexed with 1.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hesskern._base.array_types import Array
from hesskern.datasets import Case

#: The post's loop never ends if the loss does not get small enough; it takes 608 epochs, far fewer than this.
_MOST_EPOCHS = 10_000


class Posted(NamedTuple):
    """Results of the post's code."""

    version: str  # of PyTorch
    threads: int
    epochs: int
    W1: Array
    W2: Array
    hessian: NDArray[np.float64]  # with respect to W_2, row by row
    train_seconds: float
    hessian_seconds: float


def run(torch: Any, case: Case, repeats: int) -> Posted:
    """Train and differentiate as the post does; each time is the shortest of `repeats` runs."""
    train_seconds = hessian_seconds = float("inf")
    for _ in range(repeats):
        net = _network(torch, case)
        loader = _loader(torch, case)
        began = time.perf_counter()
        epochs = _train(torch, net, loader, case.lr, case.rtol)
        train_seconds = min(train_seconds, time.perf_counter() - began)
        began = time.perf_counter()
        hessian = _hessian(torch, net, loader)
        hessian_seconds = min(hessian_seconds, time.perf_counter() - began)
    return Posted(
        version=str(torch.__version__),
        threads=int(torch.get_num_threads()),
        epochs=epochs,
        W1=net.fc1.weight.detach().numpy(),
        W2=net.fc2.weight.detach().numpy(),
        hessian=hessian,
        train_seconds=train_seconds,
        hessian_seconds=hessian_seconds,
    )


def _network(torch: Any, case: Case) -> Any:
    class LinearNet(torch.nn.Module):  # type: ignore[misc]  # torch is loaded when asked for, so its types are unknown
        def __init__(self) -> None:
            super().__init__()
            inputs, hidden, outputs = case.network.widths
            self.fc1 = torch.nn.Linear(inputs, hidden, bias=False)
            self.fc2 = torch.nn.Linear(hidden, outputs, bias=False)
            self.fc1.weight = torch.nn.Parameter(torch.tensor(case.network.weights[0]))
            self.fc2.weight = torch.nn.Parameter(torch.tensor(case.network.weights[1]))

        def forward(self, x: Any) -> Any:
            return self.fc2(self.fc1(x))

    return LinearNet()


def _loader(torch: Any, case: Case) -> Any:
    dataset = torch.utils.data.TensorDataset(torch.tensor(case.X), torch.tensor(case.Y))
    return torch.utils.data.DataLoader(dataset=dataset, batch_size=len(case.X), shuffle=False)


def _loss(torch: Any, net: Any, xs: Any, ys: Any) -> Any:
    return torch.norm(net(xs) - ys, p="fro") ** 2 / 2


def _train(torch: Any, net: Any, loader: Any, lr: float, rtol: float) -> int:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    epoch, value, first = 0, 0.0, 0.0
    while epoch == 0 or (value > rtol * first and epoch < _MOST_EPOCHS):
        for xs, ys in loader:
            optimizer.zero_grad()
            loss = _loss(torch, net, xs, ys)
            loss.backward()
            optimizer.step()
        value = loss.detach().item()
        first = first if epoch else value
        epoch += 1
    return epoch


def _hessian(torch: Any, net: Any, loader: Any) -> NDArray[np.float64]:
    xs, ys = next(iter(loader))
    gradient = torch.autograd.grad(_loss(torch, net, xs, ys), net.fc2.weight, create_graph=True)[0].reshape(-1)
    size = gradient.shape[0]
    hessian = torch.zeros((size, size)).double()
    for i in range(size):
        # The cast looks wrong but does no harm: it casts a scalar whose own gradient is exactly 1.
        element = gradient[i].float()
        hessian[i] = torch.autograd.grad(element, net.fc2.weight, retain_graph=True)[0].reshape(-1)
    result: NDArray[np.float64] = hessian.numpy()
    return result
