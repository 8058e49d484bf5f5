"""Functions of numbers that kernels compute with, quick enough to stand in the innermost loops."""

import math

import numpy as np
from numba import types
from numba.extending import overload

from lm_core.kernels.kernel import inlined

_F = np.float32
# The exponential in float32: Cephes, ``single/expf.c``, https://www.netlib.org/cephes/.
_PER_LOG_2 = _F(1 / math.log(2))
# To the nearest integer from the one below.
_HALF = _F(0.5)
# The logarithm of 2 in two parts; the multiples of the first that occur are exact.
_LOG_2, _REST_OF_LOG_2 = _F(0.693359375), _F(-2.12194440e-4)
# Of its polynomial, from the fifth power of the rest, beyond 1 + x.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 0.16666665459, 0.5)
# Just above the logarithm of the least normal number: of what is below, it is 0.
_LEAST_EXPONENT = _F(-87)
# Bits of the fraction of a number, and what is added to its exponent.
_FRACTION_BITS, _EXPONENT_BIAS = np.int32(23), np.int32(127)

# A bfloat16 has the upper half of the bits of a float32.
_BITS_OF_BFLOAT16 = np.uint32(16)
# What is added to the lower half, so that it is carried if it is more than half of the last place.
_BELOW_HALF = np.uint32(0x7FFF)
# The bfloat16 of what is not a number, which must not be carried.
_NO_NUMBER = np.uint16(0x7FC0)

# The normal distribution: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964),
# formula 26.2.17, whose error is below 7.5e-8, and with the rounding of float32 below 3e-7.
_TAIL_RATE = _F(0.2316419)
# Of its polynomial, from the fifth power to the first.
_TAIL = (1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.319381530)
# The density at zero.
_PER_ROOT_OF_2_PI = 1 / math.sqrt(2 * math.pi)


@inlined
def _polynomial(coefficients, x):
    """Of the coefficients from the highest power on (Horner's rule)."""
    total = _F(coefficients[0])
    for i in range(1, len(coefficients)):
        total = total * x + _F(coefficients[i])
    return total


@inlined
def _exp_in_float32(x):
    within = max(x, _LEAST_EXPONENT)
    n = np.floor(within * _PER_LOG_2 + _HALF)
    rest = within - n * _LOG_2 - n * _REST_OF_LOG_2
    power_of_2 = np.int32((np.int32(n) + _EXPONENT_BIAS) << _FRACTION_BITS).view(np.float32)
    power = (_polynomial(_EXP, rest) * rest * rest + rest + _F(1)) * power_of_2
    return _F(0) if x < _LEAST_EXPONENT else power


def exp(x):
    """The exponential, in the precision of x; of a float32 up to 88, within 2 units of the last."""
    return np.exp(x)


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp_in_float32(x)
    return lambda x: np.exp(x)


@inlined
def _of_bfloat16(bits):
    return np.uint32(np.uint32(bits) << _BITS_OF_BFLOAT16).view(np.float32)


@inlined
def _to_bfloat16(x):
    """To the nearest, and of two that are as near to the even one (IEEE 754)."""
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> _BITS_OF_BFLOAT16) & np.uint32(1))
    rounded = np.uint32(np.uint32(bits + _BELOW_HALF) + odd)
    return np.uint16(rounded >> _BITS_OF_BFLOAT16) if x == x else _NO_NUMBER


def widened(x):
    """A number in the precision it is computed with: of bits of a bfloat16, a float32."""
    return x


@overload(widened)
def _widened(x):
    if x == types.uint16:
        return lambda x: _of_bfloat16(x)
    return lambda x: x


def narrowed(x, like):
    """A number as an array keeps it: in one of bfloat16, by the bits of the nearest of those."""
    return like.dtype.type(x)


@overload(narrowed)
def _narrowed(x, like):
    if like.dtype == types.uint16:
        return lambda x, like: _to_bfloat16(x)
    return lambda x, like: like.dtype.type(x)


def room(n, like):
    """Memory for ``n`` numbers of an array in the precision they are computed with."""
    return np.empty(n, like.dtype)


@overload(room)
def _room(n, like):
    if like.dtype == types.uint16:
        return lambda n, like: np.empty(n, np.float32)
    return lambda n, like: np.empty(n, like.dtype)


@inlined
def _normal_in_float32(x):
    t = _F(1) / (_F(1) + _TAIL_RATE * abs(x))
    density = _F(_PER_ROOT_OF_2_PI) * _exp_in_float32(-_HALF * x * x)
    tail = density * _polynomial(_TAIL, t) * t
    return density, tail if x < 0 else _F(1) - tail


@inlined
def _normal_in_float64(x):
    return _PER_ROOT_OF_2_PI * math.exp(-x * x / 2), math.erfc(-x / math.sqrt(2)) / 2


def normal(x):
    """Density and distribution function of the standard normal distribution, in x's precision."""
    return _normal_in_float64.py_func(x)


@overload(normal)
def _normal(x):
    if x == types.float32:
        return lambda x: _normal_in_float32(x)
    return lambda x: _normal_in_float64(x)


@inlined
def _sigmoid_in_float32(x):
    # Of the exponential below 1, so that nothing overflows.
    power = _exp_in_float32(-abs(x))
    return (power if x < 0 else _F(1)) / (_F(1) + power)


@inlined
def _sigmoid_in_float64(x):
    power = math.exp(-abs(x))
    return (power if x < 0 else 1) / (1 + power)


def sigmoid(x):
    """One divided by one plus the exponential of -x, in x's precision."""
    return _sigmoid_in_float64.py_func(x)


@overload(sigmoid)
def _sigmoid(x):
    if x == types.float32:
        return lambda x: _sigmoid_in_float32(x)
    return lambda x: _sigmoid_in_float64(x)
