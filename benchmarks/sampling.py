"""Measures how fast text is written at the default configuration, beside a peer's ``generate``.

    pip install -e '.[bench]'
    python -m benchmarks.sampling

The peer is GPT-2 of Hugging Face's transformers with the same sizes, in evaluation mode, with its
own cache, drawing from all tokens as the lab does. All take turns in one process, and write equally
many tokens after the same prompt: one sequence, and sixteen in a batch. Beside them stand the lab
without its cache, and the lab past ``max_seq_len``, where a cache is of no use.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.harness import arguments, median_ratio, print_result, take_turns, world
from benchmarks.peer import gpt2
from lm_core.config.training_config import TrainingConfig
from lm_core.data.tokenizer import AsciiTokenizer
from lm_core.machine import keep_freed_memory
from lm_core.model.transformer import Transformer
from lm_core.sampling import Sampler

REPETITIONS = 9
BATCHES = (1, 16)
# The lab's and the peer's names in the table.
LAB, PEER, UNCACHED, MOVING = "lm_core", "transformers", "without its cache", "the window moves"
PROMPT = "The"
# Tokens a sequence that are drawn past ``max_seq_len``, where each takes a pass over the window.
MOVING_TOKENS = 8
SIZES = ("n_layers", "d_model", "n_heads", "d_ff", "max_seq_len")


class Setting:
    """The default configuration with weights as they are initialised, for the lab and the peer."""

    def __init__(self) -> None:
        self.values = TrainingConfig()
        self.tokenizer = AsciiTokenizer()
        sizes = {name: getattr(self.values, name) for name in SIZES}
        self.model = Transformer(self.tokenizer.vocab_size, **sizes)

    def sampler(self, n: int, n_tokens: int, prompt: str = PROMPT) -> Sampler:
        """The lab's sampler of ``n`` texts."""
        return Sampler(
            self.model, self.tokenizer, prompt=prompt, max_length=n_tokens, num_samples=n
        )

    def moving(self, n: int) -> Sampler:
        """A sampler whose prompt fills the context, so that each token moves the window."""
        length = self.values.max_seq_len
        return self.sampler(n, MOVING_TOKENS, (PROMPT * length)[: length + 1])

    def peer(self, n_tokens: int) -> Callable[[int], None]:
        """Makes the peer write so many texts at once, as its documentation has people do it."""
        model = gpt2(self.values, self.tokenizer.vocab_size, dropout=0.0).eval()
        prompt = torch.tensor([list(PROMPT.encode())])

        def write(n: int) -> None:
            tokens = prompt.repeat(n, 1)
            with torch.inference_mode():
                written = model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    do_sample=True,
                    top_k=0,
                    max_new_tokens=n_tokens,
                    use_cache=True,
                    pad_token_id=0,
                )
            if written.shape != (n, len(PROMPT) + n_tokens):
                raise RuntimeError(f"the peer wrote {tuple(written.shape)} tokens")

        return write


def rows(setting: Setting, n_tokens: int, repetitions: int) -> list[dict[str, Any]]:
    """A row for each batch and contestant."""
    peer = setting.peer(n_tokens)
    cases: dict[tuple[int, str], Callable[[], Any]] = {}
    for n in BATCHES:
        cases[n, LAB] = setting.sampler(n, n_tokens)
        cases[n, PEER] = lambda n=n: peer(n)
    seconds = take_turns(cases, repetitions)
    # These take long: a few turns of them tell enough.
    slow: dict[tuple[int, str], Callable[[], Any]] = {}
    for n in BATCHES:
        slow[n, LAB] = cases[n, LAB]
        slow[n, UNCACHED] = lambda n=n: setting.sampler(n, n_tokens)(use_cache=False)
        slow[n, MOVING] = setting.moving(n)
    slow_seconds = take_turns(slow, max(1, repetitions // 3))
    found = []
    for n in BATCHES:
        for name in (LAB, PEER, UNCACHED, MOVING):
            taken = seconds.get((n, name)) or slow_seconds[n, name]
            written = n * (MOVING_TOKENS if name == MOVING else n_tokens)
            turns = seconds if (n, name) in seconds else slow_seconds
            per_token = [second / written for second in taken]
            of_the_lab = [second / (n * n_tokens) for second in turns[n, LAB]]
            found.append(
                {
                    "batch": str(n),
                    "written by": name,
                    "tokens/s": 1 / statistics.median(per_token),
                    "ms a token of each": 1e3 * n * statistics.median(per_token),
                    "times as fast is lm_core": median_ratio(per_token, of_the_lab),
                }
            )
    return found


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Lets PyTorch use so many threads; None: as many as it likes."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Measures and prints."""
    parser = arguments(__doc__, REPETITIONS)
    parser.add_argument(
        "--tokens", type=int, default=TrainingConfig().sampling_max_length, help="new tokens"
    )
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    given = parser.parse_args()
    keep_freed_memory()
    with threads(given.threads):
        setting = Setting()
        found = rows(setting, given.tokens, given.repetitions)
        facts = {
            "configuration": "default.yaml, weights as they are initialised",
            "tokens": f"{given.tokens} after {PROMPT!r}",
        }
        print_result(world(), found, given.json, facts)


if __name__ == "__main__":
    main()
