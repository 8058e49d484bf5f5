"""Generating text from a model."""

import gin
import numpy as np
import torch

from lm_core.config.checks import require_valid
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import DivergenceError
from lm_core.model.transformer import KeyValueCache, Transformer
from lm_core.randomness import keyed_generator
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
        top_k: Draw only from the k likeliest tokens; None: from all.
        top_p: Draw only from the likeliest tokens that together hold this probability (Holtzman
            et al. 2020); None: from all.

    Raises:
        InputError: A value that cannot work, or a prompt that the vocabulary lacks.
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
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.prompt = prompt
        self.max_length = max_length
        self.seed = seed
        self.num_samples = num_samples
        self.top_k = top_k
        self.top_p = top_p
        self._prompt_tokens = tokenizer.encode(prompt, where="sampling_prompt")

    def __call__(self, check_stop: CheckStop | None = None, *, use_cache: bool = True) -> str:
        """The prompt followed by ``max_length`` new tokens, as text.

        Args:
            check_stop: Called before each token; what it raises ends the sample.
            use_cache: Keep keys and values from token to token, while the context fits into
                ``max_seq_len``. The text is the same without, only slower.

        Raises:
            DivergenceError: The model gives numbers that are not finite.
        """
        tokens = self._prompt_tokens.tolist()
        generator = keyed_generator(self.seed, "sampling")
        cache = self.model.new_cache() if use_cache else None
        with self.model.evaluating():
            for _ in range(self.max_length):
                if check_stop is not None:
                    check_stop()
                logits = self._next_logits(tokens, cache)
                tokens.append(self._choose(logits, generator.random()))
        return self.tokenizer.decode(np.array(tokens))

    def _next_logits(self, tokens: list[int], cache: KeyValueCache | None) -> np.ndarray:
        """Logits for the token after these, ``(vocab_size,)`` in float64."""
        context = tokens[-self.model.max_seq_len :]
        # Positions are absolute: once the window moves, every key and value is another one.
        if cache is not None and len(tokens) <= self.model.max_seq_len:
            context = context[cache.n_tokens :]
        else:
            cache = None
        device = self.model.device
        logits = self.model(torch.tensor([context], device=device), cache=cache)[0, -1]
        values = logits.double().cpu().numpy()
        # A hook may rule tokens out with minus infinity, but not all of them.
        if np.isnan(values).any() or not np.isfinite(values.max()):
            raise DivergenceError("the model gives no finite numbers to sample from")
        return values

    def _choose(self, logits: np.ndarray, draw: float) -> int:
        """The token at which the cumulative probability passes a draw from 0 to 1."""
        if self.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")[: self.top_k]
        with np.errstate(over="ignore"):  # A tiny temperature: minus infinity, and weight 0.
            weights = np.exp((logits[order] - logits[order[0]]) / self.temperature)
        cumulative = np.cumsum(weights / weights.sum())
        if self.top_p is not None:
            n_kept = int(np.searchsorted(cumulative, self.top_p)) + 1
            cumulative = cumulative[:n_kept]
        chosen = np.searchsorted(cumulative, draw * cumulative[-1], side="right")
        return int(order[min(chosen, len(cumulative) - 1)])


def printable(text: str) -> str:
    r"""A text that is safe to show on a terminal.

    Control characters, which could move the cursor or do worse, become escapes such as ``\x1b``;
    line ends and tabs stay.
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
        for character in text
    )
