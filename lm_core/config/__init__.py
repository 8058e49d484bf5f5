"""From files and flags to checked, traced hyperparameters."""
