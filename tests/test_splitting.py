import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import text_files
from lm_core.data.corpus import load_corpus
from lm_core.data.documents import KEY_BITS, key_of
from lm_core.data.splitting import Split, split_corpus
from lm_core.errors import InputError

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
ratios = st.floats(0, 1, exclude_min=True, exclude_max=True)


def corpus_of(folder, documents):
    lines = "".join(json.dumps({"text": document}) + "\n" for document in documents)
    (folder / "a.jsonl").write_text(lines)
    return load_corpus(str(folder / "a.jsonl"))


def parts(split):
    """The text of both parts, each a list of documents or of pieces of them."""
    found = [[""], [""]]
    for is_held_out, block in split.pieces():
        found[is_held_out][-1] += block.data.decode()
        if block.ends_document:
            found[is_held_out].append("")
    return [[text for text in part if text] for part in found]


@given(st.lists(texts, min_size=1, max_size=8), ratios)
def test_by_position_the_parts_are_the_beginning_and_the_end(tmp_path_factory, documents, ratio):
    corpus = corpus_of(tmp_path_factory.mktemp("text"), documents)
    training, held_out = parts(Split(corpus, ratio, "position"))
    text = "".join(documents)
    assert "".join(training + held_out) == text
    n_bytes, exact = len("".join(training).encode()), int(len(text.encode()) * ratio)
    # To the last whole character, which has four bytes at most.
    assert exact - 3 <= n_bytes <= exact


@given(texts, ratios, st.integers(4, 9))
def test_a_part_does_not_depend_on_the_blocks_that_are_read(tmp_path_factory, text, ratio, size):
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_bytes(text.encode())
    whole = parts(Split(load_corpus(str(folder)), ratio, "position"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_BLOCK_BYTES", size)
        assert parts(Split(load_corpus(str(folder)), ratio, "position")) == whole


@given(st.lists(texts, min_size=2, max_size=30, unique=True), ratios)
def test_by_document_each_is_whole_on_one_side_and_no_side_is_empty(
    tmp_path_factory, documents, ratio
):
    corpus = corpus_of(tmp_path_factory.mktemp("text"), documents)
    training, held_out = parts(Split(corpus, ratio, "document"))
    assert training
    assert held_out
    assert training == [document for document in documents if document in training]
    assert held_out == [document for document in documents if document in held_out]
    assert sorted(training + held_out) == sorted(documents)


def test_about_the_share_that_was_asked_for_is_trained_on_from_everywhere(tmp_path):
    documents = [f"Document {number}" for number in range(4000)]
    split = Split(corpus_of(tmp_path, documents), 0.9, "document")
    training, held_out = parts(split)
    assert 3500 < len(training) < 3700
    # As many of each quarter, but for chance.
    quarters = [
        sum(document in documents[i : i + 1000] for document in held_out)
        for i in range(0, 4000, 1000)
    ]
    assert all(60 < quarter < 140 for quarter in quarters)


def test_a_document_stays_on_its_side_wherever_it_stands_and_whatever_comes(tmp_path):
    documents = [f"Document {number}" for number in range(300)]
    held_out = set(parts(Split(corpus_of(tmp_path, documents), 0.8, "document"))[1])
    more = [*documents[::-1], *(f"Another {number}" for number in range(300))]
    now = set(parts(Split(corpus_of(tmp_path, more), 0.8, "document"))[1])
    assert now & set(documents) == held_out
    # With a larger share to train on, none comes to be held out.
    assert set(parts(Split(corpus_of(tmp_path, documents), 0.9, "document"))[1]) < held_out


def test_equal_documents_are_on_one_side(tmp_path):
    documents = [f"Document {number % 10}" for number in range(100)]
    training, held_out = parts(Split(corpus_of(tmp_path, documents), 0.5, "document"))
    assert not set(training) & set(held_out)


def test_a_document_has_one_key_as_a_file_as_a_line_and_compressed(tmp_path):
    texts = ["long " * 50_000, "another " * 40_000]
    for name, text in zip("ab", texts, strict=True):
        (tmp_path / f"{name}.txt").write_text(text)
    files = load_corpus(str(tmp_path / "*.txt"))
    assert files.documents == corpus_of(tmp_path, texts).documents
    keys = {key_of(text[: 2**18].encode()) for text in texts}
    assert keys == {files.documents.smallest_key, files.documents.largest_key}
    assert all(0 <= key < 2**KEY_BITS for key in keys)


def test_the_training_text_has_nothing_of_what_is_held_out(tmp_path):
    documents = [f"Document {number}\n" for number in range(50)]
    for split_by in ("position", "document"):
        split = Split(corpus_of(tmp_path, documents), 0.5, split_by)
        blocks = list(split.training_text())
        training, held_out = parts(split)
        assert "".join(block.data.decode() for block in blocks) == "".join(training)
        # By position, the last one may be cut off.
        assert sum(block.ends_document for block in blocks) in (len(training), len(training) - 1)
        assert held_out


def test_one_document_cannot_be_divided_by_document(tmp_path):
    (tmp_path / "a.txt").write_text("one text")
    with pytest.raises(InputError) as error:
        split_corpus(load_corpus(str(tmp_path)), split_by="document")
    assert error.value.message == (
        f"{tmp_path} is one document, and split_by document holds out whole ones; split_by "
        "position divides it"
    )
    with pytest.raises(InputError, match=r"^all documents of .* begin alike"):
        split_corpus(corpus_of(tmp_path, ["same", "same"]), split_by="document")


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio):
    with pytest.raises(ValueError, match="train_ratio"):
        split_corpus(load_corpus(), train_ratio=ratio)


def test_another_way_to_split_is_refused():
    with pytest.raises(ValueError, match="unknown split_by; did you mean document"):
        split_corpus(load_corpus(), split_by="documents")
