"""Corpora that tests write, load as if they were large, and watch being read."""

import time

from lm_core.data import corpus as corpus_module
from lm_core.data.corpus import load_corpus


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def large(path, cache, **options):
    """The corpus at a path, of which a few bytes count as large."""
    return load_corpus(str(path), cache_folder=cache, largest_in_memory=3, **options)


def noted_reads(monkeypatch):
    """The names of the files that are read from now on, each as often as it is."""
    names, original = [], corpus_module.documents_of

    def read(path, *arguments):
        names.append(path.name)
        return original(path, *arguments)

    monkeypatch.setattr(corpus_module, "documents_of", read)
    return names


def old(path):
    """Waits until the file is older than the clock of its file system is coarse."""
    time.sleep(max(0.0, path.stat().st_ctime + 0.15 - time.time()))
    return path
