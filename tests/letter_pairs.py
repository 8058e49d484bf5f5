"""A tokenizer whose tokens depend on what stands around them, with a token between documents."""

import numpy as np

from lm_core.data.tokenizer import Tokenizer

SEPARATOR = 0


class LetterPairs(Tokenizer):
    """Two bytes are a token, counted from the beginning of the document; a last one is alone."""

    kind = "pairs"
    vocab_size = 2**16 + 2**8 + 1
    separator = SEPARATOR

    def encode_block(self, block):
        return np.concatenate(list(self.encode_document([block])))

    def encode_document(self, blocks):
        rest = b""
        for block in blocks:
            data = rest + block.data
            end = len(data) // 2 * 2
            pairs, rest = np.frombuffer(data[:end], ">u2"), data[end:]
            yield (pairs.astype(self.dtype) + 1 + 2**8).astype(self.dtype)
        if rest:
            yield np.array([rest[0] + 1], self.dtype)

    def _decoded(self, tokens):
        """The text, with a | for each separator."""
        parts = (
            b"|"
            if token == SEPARATOR
            else bytes([token - 1])
            if token <= 2**8
            else (int(token) - 1 - 2**8).to_bytes(2, "big")
            for token in tokens
        )
        return b"".join(parts).decode()

    def count_bytes(self, tokens):
        return len(self.decode(tokens).replace("|", "").encode())

    def to_dict(self):
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, data):
        return cls()
