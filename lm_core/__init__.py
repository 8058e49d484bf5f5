"""A Gin-configured laboratory for training language models."""
