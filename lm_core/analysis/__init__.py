"""What the records of runs say: read, summarised, compared. Nothing here needs PyTorch."""
