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
# Bytes of a number.
_BYTES = 4
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
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
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


def _tile(n_rows: int) -> Callable[..., Any]:
    """A compiled product of so many rows of ``x`` with one panel, into as many rows of ``y``.

    It is written as instructions for LLVM, since from a loop LLVM would not make sums that stay in
    registers: for each input, all sums of the tile take the product of two numbers.
    """

    @intrinsic
    def tile(typing, x, row, panel, n_inputs, y, column):
        def generate(context, builder, signature, arguments):
            given = [
                context.make_array(kind)(context, builder, argument)
                if isinstance(kind, types.Array)
                else argument
                for kind, argument in zip(signature.args, arguments, strict=True)
            ]
            _emit(builder, n_rows, *given)
            return context.get_dummy_value()

        return types.void(x, types.int64, panel, types.int64, y, types.int64), generate

    return tile


def _emit(
    builder: ir.IRBuilder, n_rows: int, x: Any, row: Any, panel: Any, end: Any, y: Any, column: Any
) -> None:
    """Writes the instructions of a tile behind those that the builder has."""
    rows = [builder.add(row, _PLACE(i)) for i in range(n_rows)]
    starts = [_element(builder, x, r, _PLACE(0)) for r in rows]
    before, loop = builder.block, builder.append_basic_block("inputs")
    after = builder.append_basic_block("stored")
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(_PLACE)
    sums = [[builder.phi(_VECTOR) for _ in range(_N_VECTORS)] for _ in rows]
    weights = [
        builder.load(
            _vector(builder, _element(builder, panel, k, _PLACE(i * _LANES))), align=_BYTES
        )
        for i in range(_N_VECTORS)
    ]
    next_k = builder.add(k, _PLACE(1))
    k.add_incoming(_PLACE(0), before)
    k.add_incoming(next_k, loop)
    multiply_and_add = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{_LANES}f32"
    )
    results = []
    for start, row_sums in zip(starts, sums, strict=True):
        number = _repeated(builder, builder.load(builder.gep(start, [k])))
        for weight, total in zip(weights, row_sums, strict=True):
            result = builder.call(multiply_and_add, [number, weight, total])
            total.add_incoming(_VECTOR([0.0] * _LANES), before)
            total.add_incoming(result, loop)
            results.append(result)
    builder.cbranch(builder.icmp_signed("<", next_k, end), loop, after)

    builder.position_at_end(after)
    for i, result in enumerate(results):
        row, place = rows[i // _N_VECTORS], _PLACE(i % _N_VECTORS * _LANES)
        target = _element(builder, y, row, builder.add(column, place))
        builder.store(result, _vector(builder, target), align=_BYTES)


def _element(builder: ir.IRBuilder, array: Any, row: Any, column: Any) -> Any:
    """The address of a number in a matrix whose rows have no gaps within."""
    width = builder.sdiv(builder.extract_value(array.strides, 0), _PLACE(_BYTES))
    return builder.gep(array.data, [builder.add(builder.mul(row, width), column)])


def _vector(builder: ir.IRBuilder, address: Any) -> Any:
    return builder.bitcast(address, _VECTOR.as_pointer())


def _repeated(builder: ir.IRBuilder, number: Any) -> Any:
    """A vector that holds a number in each place."""
    empty = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(empty, number, _PLACE(0))
    return builder.shuffle_vector(first, empty, _LANE_NUMBERS([0] * _LANES))


_tile_of_rows, _tile_of_one_row = _tile(_ROWS), _tile(1)


@inlined
def multiply_panel(x, first, end, panels, index, y):
    """Outputs of one panel, for the rows ``first`` to ``end`` of ``x``.

    Args:
        x: ``(rows, at least n_inputs)`` float32, C-contiguous.
        first: The first row.
        end: The row after the last.
        panels: From ``packed``.
        index: Of the panel.
        y: ``(rows, at least n_panels * PANEL)``, C-contiguous: where the products are written.
    """
    n_inputs = panels.shape[1]
    row = first
    while row + _ROWS <= end:
        _tile_of_rows(x, row, panels[index], n_inputs, y, index * PANEL)
        row += _ROWS
    while row < end:
        _tile_of_one_row(x, row, panels[index], n_inputs, y, index * PANEL)
        row += 1
