"""Vectors in Numba: vector instructions that the compiler does not find by itself in loops over short rows.

A `Vector` fills one register of this processor. The functions here emit LLVM's vector instructions, which LLVM
translates for the processor, so that there is one source for all instruction sets and both precisions. Arrays are flat
and contiguous; `at` counts elements from their beginning; nothing is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.config import CPU_FEATURES
from numba.extending import intrinsic, models, register_model


def _vector_bytes() -> int:
    """Return the length of the registers that Numba compiles for."""
    features = CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    supported = set(features.split(","))
    return 64 if "+avx512f" in supported else 32 if "+avx2" in supported else 16


#: Bytes of a vector.
VECTOR_BYTES = _vector_bytes()
#: Rows of a tile of a product, by the number of vectors along a row: all accumulators and operands fit into registers.
_TILE_ROWS = {1: 8, 2: 4}
#: Vectors along a tile of a product.
TILE_VECTORS = 2


class Vector(types.Type):
    """A register full of numbers of one type."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype, self.lanes = dtype, VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), vector.lanes))


class _Emitter:
    """LLVM's builder with the few operations that all functions here use."""

    def __init__(self, context: Any, builder: Any, dtype: types.Float) -> None:
        self.context, self.builder = context, builder
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        self.bytes = dtype.bitwidth // 8
        self.scalar = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.index = context.get_value_type(types.intp)

    def data(self, array_type: Any, array: Any) -> Any:
        return self.context.make_array(array_type)(self.context, self.builder, value=array).data

    def integer(self, value: int) -> Any:
        return ir.Constant(self.index, value)

    def zero(self) -> Any:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def at(self, base: Any, offset: Any) -> Any:
        return self.builder.gep(base, [offset])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.bytes)

    def store(self, value: Any, pointer: Any, align: int | None = None) -> Any:
        return self.builder.store(
            value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=align or self.bytes
        )

    def splat(self, scalar: Any) -> Any:
        single = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, single, mask)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, in one rounding where the processor has that."""
        kind = {4: "f32", 8: "f64"}[self.bytes]
        shape = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, shape, f"llvm.fmuladd.v{self.lanes}{kind}")
        return self.builder.call(function, [a, b, c])

    def accumulators(self, rows: int, columns: int) -> list[list[Any]]:
        """Variables for a tile, zero."""
        tile = [[cgutils.alloca_once(self.builder, self.vector) for _ in range(columns)] for _ in range(rows)]
        for row in tile:
            for variable in row:
                self.builder.store(self.zero(), variable)
        return tile

    def combine(self, pointer: Any, value: Any, alpha: Any, accumulate: Any) -> None:
        """pointer[:] = alpha value (+ pointer[:])."""
        value = self.builder.fmul(value, alpha)
        with self.builder.if_else(accumulate) as (then, otherwise):
            with then:
                self.store(self.builder.fadd(value, self.load(pointer)), pointer)
            with otherwise:
                self.store(value, pointer)


@intrinsic
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """Return the vector at array[at:]."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, array.dtype)
        return e.load(e.at(e.data(array, arguments[0]), arguments[1]))

    return Vector(array.dtype)(array, types.intp), emit


@intrinsic
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    """array[at:] = vector."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, array.dtype)
        e.store(arguments[2], e.at(e.data(array, arguments[0]), arguments[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


def _product_tile(
    e: _Emitter, rows: int, columns: int, k: Any, alpha: Any, a: Any, b: Any, c: Any, strides: Any, accumulate: Any
) -> None:
    """C (rows, columns vectors) = alpha A B (+ C)."""
    a_row, a_column, ldb, ldc = strides
    builder = e.builder
    sums = e.accumulators(rows, columns)
    with cgutils.for_range(builder, k) as loop:
        line = e.at(b, builder.mul(loop.index, ldb))
        right = [e.load(e.at(line, e.integer(j * e.lanes))) for j in range(columns)]
        left = e.at(a, builder.mul(loop.index, a_column))
        for i in range(rows):
            scalar = e.splat(builder.load(e.at(left, builder.mul(a_row, e.integer(i)))))
            for j in range(columns):
                builder.store(e.fma(right[j], scalar, builder.load(sums[i][j])), sums[i][j])
    for i in range(rows):
        line = e.at(c, builder.mul(ldc, e.integer(i)))
        for j in range(columns):
            e.combine(e.at(line, e.integer(j * e.lanes)), builder.load(sums[i][j]), alpha, accumulate)


def _product_strip(columns: int) -> Any:
    most = _TILE_ROWS[columns]

    @intrinsic
    def strip(typingctx: Any, memory: Any, m: Any, k: Any, alpha: Any, a: Any, a_row: Any, a_column: Any, b: Any,
              ldb: Any, accumulate: Any, c: Any, ldc: Any) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory, m, k, alpha, a, a_row, a_column, b, ldb, accumulate, c, ldc = arguments
            e = _Emitter(context, builder, signature.args[0].dtype)
            base, factor = e.data(signature.args[0], memory), e.splat(alpha)
            builder.function.attributes.add("optsize")  # unrolled, the loops would take five times as long to compile

            def tile(rows: int, i: Any) -> None:
                _product_tile(e, rows, columns, k, factor, e.at(base, builder.add(a, builder.mul(i, a_row))),
                              e.at(base, b), e.at(base, builder.add(c, builder.mul(i, ldc))),
                              (a_row, a_column, ldb, ldc), accumulate)  # fmt: skip

            whole = builder.sdiv(m, e.integer(most))
            with cgutils.for_range(builder, whole) as loop:
                tile(most, builder.mul(loop.index, e.integer(most)))
            tiled = builder.mul(whole, e.integer(most))
            remainder = builder.sub(m, tiled)
            after = builder.append_basic_block("after")
            choice = builder.switch(remainder, after)
            for rows in range(1, most):
                block = builder.append_basic_block("rest")
                choice.add_case(e.integer(rows), block)
                builder.position_at_end(block)
                tile(rows, tiled)
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        i = types.intp
        return types.void(memory, i, i, memory.dtype, i, i, i, i, i, types.boolean, i, i), emit

    return strip


product_strip_2 = _product_strip(2)
product_strip_1 = _product_strip(1)


@intrinsic
def turn_block(typingctx: Any, memory: Any, a: Any, lda: Any, b: Any, ldb: Any) -> Any:
    """B = A.T for a square block with one row and one column for each lane of a vector."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, a, lda, b, ldb = arguments
        e = _Emitter(context, builder, signature.args[0].dtype)
        base = e.data(signature.args[0], memory)
        source, target = e.at(base, a), e.at(base, b)
        rows = [e.load(e.at(source, builder.mul(lda, e.integer(i)))) for i in range(e.lanes)]
        half = e.lanes // 2
        shape = ir.VectorType(ir.IntType(32), e.lanes)
        low, high = (
            ir.Constant(shape, [part for i in range(start, start + half) for part in (i, i + e.lanes)])
            for start in (0, half)
        )
        for _ in range(half.bit_length()):  # a perfect shuffle of all entries each time
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [builder.shuffle_vector(x, y, mask) for x, y in pairs for mask in (low, high)]
        for i, row in enumerate(rows):
            e.store(row, e.at(target, builder.mul(ldb, e.integer(i))))
        return context.get_dummy_value()

    i = types.intp
    return types.void(memory, i, i, i, i), emit


@intrinsic
def scaled(typingctx: Any, vector: Any, factor: Any) -> Any:
    """Return factor vector."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, vector.dtype)
        return builder.fmul(arguments[0], e.splat(arguments[1]))

    return vector(vector, vector.dtype), emit


@intrinsic
def add(typingctx: Any, vector: Any, other: Any, factor: Any) -> Any:
    """Return vector + factor other."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, vector.dtype)
        return e.fma(arguments[1], e.splat(arguments[2]), arguments[0])

    return vector(vector, vector, vector.dtype), emit


@intrinsic
def times(typingctx: Any, vector: Any, other: Any) -> Any:
    """Return the products, entry by entry."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return vector(vector, vector), emit


@intrinsic
def total(typingctx: Any, vector: Any) -> Any:
    """Return the sum of the entries, half of them added to the other half each time."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (left,), width = arguments, vector.lanes
        while width > 1:
            width //= 2
            halves = [
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
                for start in (0, width)
            ]
            left = builder.fadd(*(builder.shuffle_vector(left, left, half) for half in halves))
        return builder.extract_element(left, ir.IntType(32)(0))

    return vector.dtype(vector), emit


@intrinsic
def write_runs(typingctx: Any, out: Any, at: Any, factors: Any, left: Any, left_factors: Any, right: Any,
               right_factors: Any, runs: Any, count: Any, both: Any) -> Any:  # fmt: skip
    """Write `runs` runs of `count` entries one after the other: left_factors[k] left (+ right_factors[k] right).

    All but `out` are pieces of `factors`; the second term is added if `both`. Runs are rounded up to whole vectors;
    each overwrites what the one before wrote past its end.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at, factors, left, left_factors, right, right_factors, runs, count, both = arguments
        e = _Emitter(context, builder, signature.args[0].dtype)
        base, target = e.data(signature.args[2], factors), e.at(e.data(signature.args[0], out), at)
        left, right, left_factors, right_factors = (
            e.at(base, piece) for piece in (left, right, left_factors, right_factors)
        )
        vectors = builder.sdiv(builder.add(count, e.integer(e.lanes - 1)), e.integer(e.lanes))

        def combined(pair: list[Any], factor: list[Any]) -> Any:
            value = builder.fmul(pair[0], factor[0])
            return e.fma(pair[1], factor[1], value) if len(pair) > 1 else value

        def write(sources: list[Any], scales: list[Any], number: int | None) -> None:
            """All runs; if the `number` of vectors is known, they are loaded once."""
            places = [e.integer(j * e.lanes) for j in range(number or 0)]
            kept = [[e.load(e.at(source, place)) for source in sources] for place in places]
            with cgutils.for_range(builder, runs) as run:
                factor = [e.splat(builder.load(e.at(scale, run.index))) for scale in scales]
                to = e.at(target, builder.mul(run.index, count))
                if number:
                    for place, pair in zip(places, kept, strict=True):
                        e.store(combined(pair, factor), e.at(to, place))
                else:
                    with cgutils.for_range(builder, vectors) as loop:
                        k = builder.mul(loop.index, e.integer(e.lanes))
                        e.store(combined([e.load(e.at(source, k)) for source in sources], factor), e.at(to, k))

        def choose(sources: list[Any], scales: list[Any]) -> None:
            after = builder.append_basic_block("written")
            cases = {number: builder.append_basic_block("runs") for number in (1, 2, None)}
            choice = builder.switch(vectors, cases[None])
            for number, block in cases.items():
                if number:
                    choice.add_case(e.integer(number), block)
                builder.position_at_end(block)
                write(sources, scales, number)
                builder.branch(after)
            builder.position_at_end(after)

        with builder.if_else(both) as (then, otherwise):
            with then:
                choose([left, right], [left_factors, right_factors])
            with otherwise:
                choose([left], [left_factors])
        return context.get_dummy_value()

    i = types.intp
    return types.void(out, i, factors, i, i, i, i, i, i, types.boolean), emit


@intrinsic
def store_past_caches(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    """array[at:] = vector, at an aligned address, without reading its cache line first."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = _Emitter(context, builder, array.dtype)
        stored = e.store(arguments[2], e.at(e.data(array, arguments[0]), arguments[1]), VECTOR_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic
def fence(typingctx: Any) -> Any:
    """Make stores past the caches visible to other threads before all later operations."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit
