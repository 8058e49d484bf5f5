"""Generating text from a model."""

from collections.abc import Sequence

import gin
import numpy as np

from lm_core.config.checks import require_valid
from lm_core.data.tokenizer import Tokenizer
from lm_core.generation import SAMPLES_AT_ONCE, Generation
from lm_core.model.transformer import Transformer
from lm_core.randomness import keyed_generator
from lm_core.token_choice import TokenChoice
from lm_core.training.signals import CheckStop


@gin.configurable(denylist=["model", "tokenizer"])
class Sampler:
    """Continues a prompt, the same way every time for the same seed and weights.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        temperature: Divides the logits; 0 always takes the likeliest token.
        prompt: The text to go on from.
        max_length: New tokens, after the prompt.
        seed: Seed of the draws.
        num_samples: How many texts are written, each with draws of its own. The first is the one
            that is written alone.
        top_k: Draw only from the k likeliest tokens; None: from all.
        top_p: Draw only from the likeliest tokens that together hold this probability (Holtzman
            et al. 2020); None: from all.

    Raises:
        InputError: A value that cannot work, a prompt that the vocabulary lacks, or a tokenizer
            that is not that of the model.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        temperature: float = 1.0,
        prompt: str = "The",
        max_length: int = 100,
        seed: int = 42,
        num_samples: int = 1,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        values = {
            "sampling_temperature": temperature,
            "sampling_prompt": prompt,
            "sampling_max_length": max_length,
            "sampling_seed": seed,
            "sampling_num_samples": num_samples,
            "sampling_top_k": top_k,
            "sampling_top_p": top_p,
        }
        require_valid(values)
        model.require_vocabulary(tokenizer.vocab_size)
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.prompt = prompt
        self.max_length = max_length
        self.seed = seed
        self.num_samples = num_samples
        self.top_k = top_k
        self.top_p = top_p
        self._choose = TokenChoice(temperature, top_k, top_p)
        self._prompt_tokens = tokenizer.encode(prompt, where="sampling_prompt")

    def __call__(self, check_stop: CheckStop | None = None, *, use_cache: bool = True) -> list[str]:
        """``num_samples`` texts, each the prompt followed by ``max_length`` new tokens.

        A sample is a function of its index, the settings and the weights: it is the same text in
        any number of samples. Where logits that are off by no more than rounding might give another
        token, they are computed in the one way that depends on the tokens of that sample alone.

        Args:
            check_stop: Called before each token; what it raises ends the samples.
            use_cache: Keep keys and values from token to token, while the context fits into
                ``max_seq_len``. The texts are the same without, only slower.

        Raises:
            DivergenceError: The model gives numbers that are not finite.
        """
        texts: list[str] = []
        with self.model.evaluating():
            while (n := len(texts)) < self.num_samples:
                indices = range(n, min(n + SAMPLES_AT_ONCE, self.num_samples))
                texts += self._written(indices, check_stop or (lambda: None), use_cache)
        return texts

    def _written(self, indices: range, check_stop: CheckStop, use_cache: bool) -> list[str]:
        """The samples of some indices, in one batch."""
        prompt, n_new = self._prompt_tokens, self.max_length
        generation = Generation(self.model, prompt, len(indices), n_new, use_cache)
        generators = [keyed_generator(self.seed, "sampling", index) for index in indices]
        for _ in range(n_new):
            check_stop()
            draws = np.array([generator.random() for generator in generators])
            tokens, are_close = self._choose(generation.next_logits(), draws)
            if are_close.any() and not generation.is_plain:
                for i in np.flatnonzero(are_close):
                    plain = self._choose(generation.plain_logits(i), draws[i : i + 1])
                    tokens[i] = plain.tokens[0]
            generation.append(tokens)
        return [self.tokenizer.decode(tokens) for tokens in generation.tokens]


def printable(text: str) -> str:
    r"""A text that is safe to show on a terminal.

    Control characters, which could move the cursor or do worse, become escapes such as ``\x1b``;
    line ends and tabs stay.
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
        for character in text
    )


def headings(texts: Sequence[str]) -> list[str]:
    """What each of some samples is called: a lone one just ``sample``."""
    return ["sample"] if len(texts) == 1 else [f"sample {index}" for index in range(len(texts))]


def written_out(texts: Sequence[str], for_a_terminal: bool) -> str:
    """Samples as ``--mode=sample`` writes them.

    A lone one is for a program the exact text and nothing else. Several follow each other, each
    below a line with its number, and on a line of its own.

    Args:
        texts: The samples, at least one.
        for_a_terminal: Whether a person is to read them: what a terminal would obey is shown
            instead, and the last line ends.
    """
    if for_a_terminal:
        texts = [printable(text) for text in texts]
    if len(texts) == 1:
        return texts[0] + "\n" * for_a_terminal
    parts = zip(headings(texts), texts, strict=True)
    return "".join(f"--- {heading} ---\n{text}\n" for heading, text in parts)
