"""Hooks on activations and updates."""
