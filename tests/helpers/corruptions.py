"""Hessians that went wrong, made by plain NumPy from the names of what went wrong, without the package."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class UserProblem:
    """A network with its data; biases: one a layer, or None."""

    weights: tuple
    biases: tuple
    X: np.ndarray
    Y: np.ndarray
    kind: str = "half_sum"
    decay: float = 0.0

    @property
    def names(self):
        """Parameter names, in order."""
        layers = enumerate(self.biases)
        return [name for k, b in layers for name in ([f"{k}.weight"] + ([f"{k}.bias"] if b is not None else []))]


DAMPING = 0.37


def random_problem(seed):
    """Each seed another shape: depth 1 to 4, square layers and not, square data and not, with and without biases."""
    rng = np.random.default_rng([606, seed])
    depth = 1 + (1, 2, 1, 3, 0)[seed % 5]
    if seed % 3 == 0:
        widths = [int(rng.integers(2, 5))] * (depth + 1)  # square weights
    else:
        widths = [int(width) for width in rng.integers(2, 6, depth + 1)]
    if seed % 4 == 1:
        widths[-1] = widths[0]  # layers can be swapped
    samples = (widths[0], widths[-1], int(rng.integers(3, 12)))[seed % 3 if seed % 2 else 0]
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    return UserProblem(
        tuple(rng.standard_normal((out, inner)) for inner, out in pairs),
        tuple(rng.standard_normal(out) if seed % 5 in (1, 3) else None for _, out in pairs),
        rng.standard_normal((samples, widths[0])),
        rng.standard_normal((samples, widths[-1])),
        ("half_sum", "sum", "mean")[seed % 3],
        (0.0, 0.0, 0.125)[seed // 2 % 3],
    )


def scale_of(problem):
    return {"half_sum": 1.0, "sum": 2.0, "mean": 2.0 / problem.Y.size}[problem.kind]


def layout(problem, names):
    """Slices of the named parameters, with their shapes."""
    found, at = [], 0
    for name in names:
        layer, kind = int(name.split(".")[0]), name.split(".")[1]
        array = problem.weights[layer] if kind == "weight" else problem.biases[layer]
        found.append((layer, kind, at, array.shape))
        at += array.size
    return found, at


def parts(problem, names):
    """Gauss-Newton part from the Jacobian, functional part from second derivatives of the prediction."""
    weights, biases, X = problem.weights, problem.biases, problem.X
    activations = [X]
    for weight, bias in zip(weights, biases, strict=True):
        activations.append(activations[-1] @ weight.T + (0.0 if bias is None else bias))
    residual = activations[-1] - problem.Y

    def between(lower, upper):  # from the output of layer `lower` to the input of layer `upper`
        product = np.eye(len(weights[lower]))
        for weight in weights[lower + 1 : upper]:
            product = weight @ product
        return product

    found, size = layout(problem, names)
    ones = np.ones((len(X), 1))
    jacobian, functional = np.zeros((*problem.Y.shape, size)), np.zeros((size, size))
    inputs = [activations[layer] if kind == "weight" else ones for layer, kind, _, _ in found]
    above = [between(layer, len(weights)) for layer, *_ in found]
    for j, (layer, _, start, shape) in enumerate(found):
        stop = start + int(np.prod(shape))
        jacobian[:, :, start:stop] = np.einsum("or,ns->nors", above[j], inputs[j]).reshape(*problem.Y.shape, -1)
        for k, (lower, _, at, other) in enumerate(found):
            if lower >= layer or found[j][1] == "bias":
                continue
            end = at + int(np.prod(other))
            block = np.einsum("no,or,sp,nq->rspq", residual, above[j], between(lower, layer), inputs[k]).reshape(
                stop - start, end - at
            )
            functional[start:stop, at:end] = block
            functional[at:end, start:stop] = block.T
    flat = jacobian.reshape(-1, size)
    return scale_of(problem) * flat.T @ flat, scale_of(problem) * functional


def hessian(problem, names=None):
    """The Hessian with its weight decay."""
    names = problem.names if names is None else names
    gauss_newton, functional = parts(problem, names)
    return gauss_newton + functional + problem.decay * np.eye(len(functional))


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def changed_data(problem, key):
    """Pairs (factor, problem)."""
    X, Y = problem.X, problem.Y
    name, given = key.partition("[")[0], numbers(key)
    match name:
        case "X-transposed":
            return [(1.0, replace(problem, X=X.T))]
        case "Y-transposed":
            return [(1.0, replace(problem, Y=Y.T))]
        case "XY-transposed":
            return [(1.0, replace(problem, X=X.T, Y=Y.T))]
        case "last-batch":
            return [(1.0, replace(problem, X=X[-given[0] :], Y=Y[-given[0] :]))]
        case "first-batch":
            return [(1.0, replace(problem, X=X[: given[0]], Y=Y[: given[0]]))]
        case "uneven-batches":
            starts = range(0, len(X), given[0])
            batches = [replace(problem, X=X[at : at + given[0]], Y=Y[at : at + given[0]]) for at in starts]
            return [(1 / len(batches), batch) for batch in batches]
    return None


def changed_weights(problem, key):
    weights, name, given = list(problem.weights), key.partition("[")[0], numbers(key)
    match name:
        case "weight-transposed":
            weights = [w.T if k in given else w for k, w in enumerate(weights)]
        case "weights-filled-by-columns":
            weights = [w.ravel(order="F").reshape(w.shape) if k in given else w for k, w in enumerate(weights)]
        case "weights-filled-by-rows":
            weights = [w.ravel().reshape(w.shape, order="F") if k in given else w for k, w in enumerate(weights)]
        case "layers-swapped" if given:
            weights[given[0]], weights[given[1]] = weights[given[1]], weights[given[0]]
        case "layers-swapped":
            biases = problem.biases[::-1]
            if all(b is None or len(b) == len(w) for b, w in zip(biases, weights[::-1], strict=True)):
                return replace(problem, weights=tuple(weights[::-1]), biases=biases)
            weights = weights[::-1]
        case "layers-swapped-transposed":
            weights = [w.T for w in weights[::-1]]
        case _:
            return None
    return replace(problem, weights=tuple(weights))


def order_index(problem, names, keys):
    """Where the entries of the wrong order come from, by moving labelled arrays around as a program would."""
    found, size = layout(problem, names)
    label = np.arange(size)
    arrays = {(layer, kind): label[at : at + int(np.prod(shape))].reshape(shape) for layer, kind, at, shape in found}
    sequence = [(layer, kind) for layer, kind, *_ in found]
    stacked = set()
    for key in keys:
        if key == "vec-column":
            stacked = {layer for layer, _ in sequence}
        elif key.startswith("vec-column["):
            stacked = set(numbers(key))
    layers = sorted({layer for layer, _ in sequence})
    weights, biases = [[one for one in sequence if one[1] == kind] for kind in ("weight", "bias")]
    if "bias-column" in keys:
        rows = [
            np.column_stack([arrays[k, "weight"], arrays[k, "bias"]]) if (k, "bias") in arrays else arrays[k, "weight"]
            for k in layers
        ]
        return np.concatenate([row.ravel() for row in rows])
    if "layers-reversed" in keys:
        sequence = [one for layer in layers[::-1] for one in sequence if one[0] == layer]
    elif "all-reversed" in keys:
        sequence = sequence[::-1]
    elif "biases-first" in keys:
        sequence = biases + weights
    elif "biases-last" in keys:
        sequence = weights + biases
    elif "bias-before-weight" in keys:
        sequence = [one for layer in layers for one in sequence[::-1] if one[0] == layer]
    flat = [arrays[one].ravel(order="F" if one[1] == "weight" and one[0] in stacked else "C") for one in sequence]
    return np.concatenate(flat)


ORDERS = ("layers-reversed", "all-reversed", "biases-first", "biases-last", "bias-before-weight", "bias-column")


def selected(problem, asked, keys):
    for key in keys:
        if key == "whole":
            return problem.names
        if key.startswith("block["):
            return key[6:-1].split(",")
    return problem.names if asked is None else asked


def factor(problem, key, batch=None):
    """The factor that "scale[...]" is."""
    return eval(key[6:-1], {"__builtins__": {}}, {"N": len(problem.X), "o": problem.Y.shape[1], "batch": batch})


def corrupted(problem, keys, asked=None, damping=DAMPING):
    """The matrix where all of this went wrong; None where it cannot."""
    names = selected(problem, asked, keys)
    terms, batch = [(1.0, problem)], len(problem.X)
    for key in keys:
        data = changed_data(problem, key)
        if data is not None:
            terms, batch = data, sum(len(each.X) for _, each in data)
    for key in keys:
        if changed_weights(problem, key) is not None:
            terms = [(factor, changed_weights(each, key)) for factor, each in terms]
    gauss_newton = sum(factor * parts(each, names)[0] for factor, each in terms)
    functional = sum(factor * parts(each, names)[1] for factor, each in terms)
    matrix, decay = gauss_newton + functional, problem.decay
    if "gauss-newton" in keys:
        matrix, decay = gauss_newton, 0.0
    if "functional" in keys:
        matrix, decay = functional, 0.0
    if "functional-negated" in keys:
        matrix = gauss_newton - functional
    found, size = layout(problem, names)
    if "block-diagonal" in keys or "block-diagonal-tensors" in keys:
        which = [one[0] if "block-diagonal" in keys else k for k, one in enumerate(found)]
        group = np.concatenate([np.full(int(np.prod(shape)), w) for w, (*_, shape) in zip(which, found, strict=True)])
        matrix = np.where(group[:, None] == group[None, :], matrix, 0.0)
    if "diagonal-only" in keys:
        matrix = np.diag(np.diag(matrix))
    if "factors-exchanged" in keys:
        group = np.concatenate([np.full(int(np.prod(shape)), layer) for layer, _, _, shape in found])
        index = order_index(problem, names, ["vec-column"])
        matrix = np.where(group[:, None] == group[None, :], matrix[np.ix_(index, index)], matrix)
    index = order_index(problem, names, keys)
    matrix = matrix[np.ix_(index, index)] + decay * np.eye(size)
    for key in keys:
        if key.startswith("scale["):
            expression = key[6:-1]
            if expression == "constant":
                matrix = 3.7 * matrix
                continue
            matrix = factor(problem, key, batch) * matrix
    if "damping" in keys:
        matrix = matrix + damping * np.eye(size)
    if "triangle[lower]" in keys:
        matrix = np.tril(matrix)
    if "triangle[upper]" in keys:
        matrix = np.triu(matrix)
    return matrix


def applicable(problem):
    """Names of everything that can go wrong with this problem, by kind."""
    X, Y, weights = problem.X, problem.Y, problem.weights
    samples, depth = len(X), len(weights)
    data = []
    if X.shape[0] == X.shape[1]:
        data.append("X-transposed")
    if Y.shape[0] == Y.shape[1]:
        data.append("Y-transposed")
    if len(data) == 2:
        data.append("XY-transposed")
    data += [f"last-batch[{samples // 2}]", f"first-batch[{samples - 1}]"]
    if problem.kind == "mean":
        data += [f"uneven-batches[{size}]" for size in (2, 3) if samples % size and samples > size]
    changed = []
    square = [k for k, w in enumerate(weights) if w.shape[0] == w.shape[1]]
    changed += [f"weight-transposed[{k}]" for k in square]
    changed += [f"weight-transposed[{','.join(map(str, square))}]"] if len(square) > 1 else []
    for k in range(depth):
        if k not in square:
            changed += [f"weights-filled-by-columns[{k}]", f"weights-filled-by-rows[{k}]"]
    shapes = [w.shape for w in weights]
    if depth > 1 and shapes == shapes[::-1]:
        changed.append("layers-swapped")
    if depth > 1 and shapes == [shape[::-1] for shape in shapes[::-1]]:
        changed.append("layers-swapped-transposed")
    vec = ["vec-column"] + ([f"vec-column[{k}]" for k in range(depth)] if depth > 1 else [])
    order = ["layers-reversed"] if depth > 1 else []
    if problem.biases[0] is not None:
        order += [one for one in ORDERS if one != "layers-reversed" and (depth > 1 or one != "all-reversed")]
    part = (
        ["gauss-newton", "functional", "functional-negated", "block-diagonal", "factors-exchanged"] if depth > 1 else []
    )
    part += ["diagonal-only"]
    part += ["block-diagonal-tensors"] if problem.biases[0] is not None else []
    outputs = Y.shape[1]
    scale = ["scale[-1]", "scale[2]", "scale[1/2]", "scale[1/N]", "scale[1/o]", "scale[1/(N*o)]", "scale[constant]"]
    scale = [key for key in scale if not (key == "scale[1/o]" and outputs == 1)]
    block = (
        [f"block[{','.join(name for name in problem.names if name.startswith(f'{depth - 1}.'))}]"] if depth > 1 else []
    )
    return {
        "data": data,
        "weights": changed,
        "vec": vec,
        "order": order,
        "part": part,
        "scale": scale,
        "damping": ["damping"],
        "selection": block,
        "triangle": ["triangle[lower]", "triangle[upper]"],
    }
