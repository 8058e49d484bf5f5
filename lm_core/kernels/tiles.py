"""Products of a few rows with a matrix, whose sums stay in the processor's registers.

A library that multiplies matrices of any size puts both into an order of its own first, which for a
few rows takes longer than to multiply them. Here the matrix is put into that order once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lm_core.kernels.kernel import inlined

# Rows of a tile: a number of the matrix that is read is used so often.
_ROWS = 4
# Bytes of a number in float32.
_BYTES = 4
# Bits of a byte, by which strides count.
_BITS = 8
# Numbers in a vector register, and vectors in a tile's row, for processors by what LLVM calls their
# features: so many that a tile's sums fit into the registers.
_VECTORS = {"avx512f": (16, 4), "avx2": (8, 2), "neon": (4, 4)}
# Of any other processor.
_OTHER_VECTORS = (4, 2)


def _vectors() -> tuple[int, int]:
    features = llvm.get_host_cpu_features()
    return next(
        (vectors for name, vectors in _VECTORS.items() if features.get(name)), _OTHER_VECTORS
    )


_LANES, _N_VECTORS = _vectors()
# LLVM's type of a place in memory, of 64 bits.
_PLACE = ir.IntType(64)
# Its type of a choice of places in a vector.
_LANE_NUMBERS = ir.VectorType(ir.IntType(32), _LANES)
# Outputs of a tile: those of a panel.
PANEL = _LANES * _N_VECTORS


def padded(n: int) -> int:
    """How many outputs ``n`` outputs become, since panels are whole."""
    return -(-n // PANEL) * PANEL


def packed(matrices: Sequence[torch.Tensor]) -> np.ndarray:
    """Matrices of one shape, in the order in which tiles read them.

    Args:
        matrices: ``(n_outputs, n_inputs)`` float32 each.

    Returns:
        The panels of each, ``(n_matrices, n_panels, n_inputs, PANEL)``; outputs that are missing in
        the last panel are zero.
    """
    n_outputs, n_inputs = matrices[0].shape
    panels = torch.empty(
        len(matrices), padded(n_outputs) // PANEL, n_inputs, PANEL, dtype=torch.float32
    )
    n_whole, n_rest = divmod(n_outputs, PANEL)
    for own, matrix in zip(panels, matrices, strict=True):
        whole, rest = matrix.detach().split([n_whole * PANEL, n_rest])
        own[:n_whole] = whole.view(n_whole, PANEL, n_inputs).transpose(1, 2)
        if n_rest:
            own[-1, :, :n_rest] = rest.T
            own[-1, :, n_rest:] = 0
    return panels.numpy()


def _tile(n_rows: int, adds: bool) -> Callable[..., Any]:
    """A compiled product of so many rows of ``x`` with one panel, into as many rows of ``y``.

    It is written as instructions for LLVM, since from a loop LLVM would not make sums that stay in
    registers: for each input, all sums of the tile take the product of two numbers.

    Args:
        n_rows: How many.
        adds: Whether the product is added to what stands in ``y``.
    """

    @intrinsic
    def tile(typing, x, row, panel, n_inputs, y, column):
        def generate(context, builder, signature, arguments):
            x, row, panel, n_inputs, y, column = (
                context.make_array(kind)(context, builder, argument)
                if isinstance(kind, types.Array)
                else argument
                for kind, argument in zip(signature.args, arguments, strict=True)
            )
            rows = [builder.add(row, _PLACE(i)) for i in range(n_rows)]
            places = [builder.add(column, _PLACE(i * _LANES)) for i in range(_N_VECTORS)]
            vector = ir.VectorType(context.get_data_type(signature.args[0].dtype), _LANES)
            targets = [[_vector(builder, vector, y, r, c) for c in places] for r in rows]
            _emit(builder, vector, x, rows, panel, n_inputs, targets, adds)
            return context.get_dummy_value()

        return types.void(x, types.int64, panel, types.int64, y, types.int64), generate

    return tile


def _emit(
    builder: ir.IRBuilder,
    vector: ir.VectorType,
    x: Any,
    rows: list[Any],
    panel: Any,
    n_inputs: Any,
    targets: list[list[Any]],
    adds: bool,
) -> None:
    """Writes the instructions of a tile behind those that the builder has."""
    zero = vector([0.0] * _LANES)
    size = _align(vector)
    at_first = [
        [builder.load(target, align=size) if adds else zero for target in row] for row in targets
    ]
    before, loop = builder.block, builder.append_basic_block("inputs")
    after = builder.append_basic_block("sums")
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(_PLACE)
    sums = [[builder.phi(vector) for _ in row] for row in targets]
    weights = [
        builder.load(_vector(builder, vector, panel, k, _PLACE(i * _LANES)), align=size)
        for i in range(_N_VECTORS)
    ]
    for row, row_sums, row_at_first in zip(rows, sums, at_first, strict=True):
        number = _repeated(builder, builder.load(_element(builder, x, row, k)), vector)
        for weight, total, first in zip(weights, row_sums, row_at_first, strict=True):
            total.add_incoming(first, before)
            total.add_incoming(_fused(builder, number, weight, total), loop)
    next_k = builder.add(k, _PLACE(1))
    k.add_incoming(_PLACE(0), before)
    k.add_incoming(next_k, loop)
    builder.cbranch(builder.icmp_signed("<", next_k, n_inputs), loop, after)

    builder.position_at_end(after)
    for row_sums, row in zip(sums, targets, strict=True):
        for total, target in zip(row_sums, row, strict=True):
            builder.store(total.incomings[1][0], target, align=size)


def _align(vector: ir.VectorType) -> int:
    """Bytes that a number takes: vectors may begin at any."""
    return _BYTES * (1 if isinstance(vector.element, ir.FloatType) else 2)


def _fused(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    kind = "f32" if isinstance(a.type.element, ir.FloatType) else "f64"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(a.type, [a.type] * 3), f"llvm.fma.v{_LANES}{kind}"
    )
    return builder.call(function, [a, b, c])


def _element(builder: ir.IRBuilder, array: Any, row: Any, column: Any) -> Any:
    """The address of a number in a matrix with any strides."""
    strides = [builder.extract_value(array.strides, axis) for axis in range(2)]
    offset = builder.add(builder.mul(row, strides[0]), builder.mul(column, strides[1]))
    start = builder.bitcast(array.data, ir.IntType(_BITS).as_pointer())
    return builder.bitcast(builder.gep(start, [offset]), array.data.type)


def _vector(builder: ir.IRBuilder, vector: ir.VectorType, array: Any, row: Any, column: Any) -> Any:
    return builder.bitcast(_element(builder, array, row, column), vector.as_pointer())


def _repeated(builder: ir.IRBuilder, number: Any, vector: ir.VectorType) -> Any:
    """A vector that holds a number in each place."""
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, number, _PLACE(0))
    return builder.shuffle_vector(first, empty, _LANE_NUMBERS([0] * _LANES))


def _product(adds: bool) -> Callable[..., Any]:
    """A compiled product of all rows of a matrix with panels, from tiles."""
    rows_at_once, one_row = _tile(_ROWS, adds), _tile(1, adds)

    @inlined
    def product(x, panels, y):
        n_inputs = panels.shape[1]
        for index in range(len(panels)):
            row = 0
            while row + _ROWS <= len(x):
                rows_at_once(x, row, panels[index], n_inputs, y, index * PANEL)
                row += _ROWS
            while row < len(x):
                one_row(x, row, panels[index], n_inputs, y, index * PANEL)
                row += 1

    return product


# Of the rows of ``x``, ``(rows, at least n_inputs)`` with any strides, with panels, ``(n_panels,
# n_inputs, PANEL)`` whose rows have no gaps within: written to ``y``, ``(rows, at least n_panels *
# PANEL)`` whose rows have none either; or added to what stands there.
multiply, multiply_and_add = _product(adds=False), _product(adds=True)
