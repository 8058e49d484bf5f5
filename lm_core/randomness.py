"""Randomness as a function of (seed, stream, step, ...), never as a state that moves.

Every random number of a run is drawn from a generator made on the spot from the numbers that say
what it is for. Nothing has to be stored to go on with a run, nothing can be forgotten, and
the numbers do not depend on how the work is divided over processes.
"""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# One number for each purpose, so that equal (seed, step, ...) never share random numbers; "hooks"
# is for those that people write.
# The values are part of what makes a run reproducible: add new ones, never change these.
STREAMS = {
    "initialisation": 1,
    "batches": 2,
    "dropout": 3,
    "sampling": 4,
    "activation_noise": 5,
    "gradient_noise": 6,
    "hooks": 7,
    "data_order": 8,
    "search": 9,
    "bootstrap": 10,
}

# Step, place and sequence: no random number needs more to say what it is for.
_N_INDICES = 3
# The largest signed number of 64 bits, which YAML, JSON, numpy and PyTorch all hold.
LARGEST_SEED = 2**63 - 1
# Drawn seeds are short enough to be typed again.
_DRAWN_SEEDS = 2**31


def draw_seed() -> int:
    """A seed for a run whose configuration leaves it open."""
    return secrets.randbelow(_DRAWN_SEEDS)


class StepKey(NamedTuple):
    """Where in the run's randomness a forward pass stands.

    Attributes:
        seed: The run's seed.
        step: The training step, counted from 1.
        first_sequence: Index, in the global batch, of the first sequence of this pass. A process
            that computes sequences 8 to 15 of a batch passes 8, and so gets their masks.
    """

    seed: int
    step: int
    first_sequence: int = 0


def keyed_bits(seed: int, stream: str, *indices: int) -> np.random.SFC64:
    """A bit generator that depends on its arguments alone.

    Args:
        seed: The run's seed, 0 to 2**63 - 1.
        stream: What the numbers are for, a name in ``STREAMS``.
        *indices: Up to three non-negative numbers, such as step, site and sequence. Leaving one
            out means 0.

    Returns:
        A numpy SFC64 bit generator (about 10 microseconds to make), seeded through numpy's
        ``SeedSequence``, which mixes all the words it is given.

    Raises:
        ValueError: An unknown stream, or more than three indices.
    """
    (entropy,) = keyed_entropy(1, seed, stream, *indices)
    return np.random.SFC64(np.random.SeedSequence(entropy))


def keyed_entropy(n_keys: int, seed: int, stream: str, *indices: int | Sequence[int]) -> np.ndarray:
    """What ``SeedSequence`` mixes for several keys.

    Args:
        n_keys: How many.
        seed: As of ``keyed_bits``.
        stream: As of ``keyed_bits``.
        *indices: As of ``keyed_bits``; each may be a number for each key, too.

    Returns:
        ``(n_keys, n_words)`` uint32.

    Raises:
        ValueError: As of ``keyed_bits``.
    """
    if stream not in STREAMS:
        raise ValueError(f"there is no stream {stream!r} (there are {', '.join(STREAMS)})")
    if len(indices) > _N_INDICES:
        raise ValueError(f"at most {_N_INDICES} indices make a key, not {len(indices)}")
    fields = (seed, STREAMS[stream], *indices, *(0,) * (_N_INDICES - len(indices)))
    # Fixed width, 64 bits a field: SeedSequence would read (2**32,) and (0, 1) as the same words.
    columns = np.empty((n_keys, len(fields)), dtype="<u8")
    for index, field in enumerate(fields):
        columns[:, index] = field
    return columns.view("<u4").astype(np.uint32)


def keyed_generator(seed: int, stream: str, *indices: int) -> np.random.Generator:
    """A numpy generator over ``keyed_bits`` with the same arguments."""
    return np.random.Generator(keyed_bits(seed, stream, *indices))
