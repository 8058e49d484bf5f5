from pathlib import Path

import pytest

from lm_core.data.cache_folder import cannot_keep, default_cache_folder, require_usable
from lm_core.errors import MachineError


def test_without_a_home_the_message_says_what_to_do(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LM_CORE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RuntimeError, match="LM_CORE_CACHE names one"):
        default_cache_folder()


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("LM_CORE_CACHE", raising=False)
    assert default_cache_folder() == tmp_path / "user" / "lm_core"
    monkeypatch.setenv("LM_CORE_CACHE", str(tmp_path / "mine"))
    assert default_cache_folder() == tmp_path / "mine"


def test_what_cannot_be_kept_is_told_in_one_sentence_with_what_to_do(tmp_path):
    told = cannot_keep(tmp_path, OSError(28, "No space left on device")).message
    assert told == (
        f"the tokens of the corpus cannot be kept in {tmp_path}: No space left on device; "
        "LM_CORE_CACHE names another folder"
    )


def test_a_folder_that_can_be_used_is_made_and_left_empty(tmp_path):
    require_usable(tmp_path / "a" / "b")
    assert not any((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot be kept in .*file: "):
        require_usable(tmp_path / "file")
