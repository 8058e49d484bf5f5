"""Searching for good hyperparameters: many short runs, each chosen by what the others gave."""
