"""Runs drawn: a page that opens anywhere, and figures for papers. Nothing here needs PyTorch."""
