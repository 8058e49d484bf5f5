"""What the documentation says of the code, made from the code: ``python -m lm_core.reference``."""
