import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import documents as documents_module
from lm_core.data.documents import DocumentCounter, TextDigest, documents_of
from lm_core.data.text_files import Block
from lm_core.errors import InputError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, text_key="text"):
    return [block.data.decode() for block in documents_of(path, text_key)]


@given(st.lists(texts, max_size=20), st.booleans(), st.integers(1, 40), st.sampled_from("\n\r"))
def test_each_line_of_json_is_a_document(tmp_path_factory, texts, is_ascii, size, end):
    path = tmp_path_factory.mktemp("file") / "a.jsonl"
    end = "\r\n" if end == "\r" else "\n"
    lines = (
        json.dumps({"id": 3, "text": text}, ensure_ascii=is_ascii) + end + end * (i % 2)
        for i, text in enumerate(texts)
    )
    write(path, "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "_READ_BYTES", size)
        found = list(documents_of(path, "text"))
    assert [block.data.decode() for block in found] == [text for text in texts if text]
    assert all(block.ends_document and block.offset == 0 for block in found)
    numbers = [1 + i + i // 2 for i, text in enumerate(texts) if text]
    assert [block.line for block in found] == numbers


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_lines_of_json_are_told_by_the_name(tmp_path, name):
    content = b'{"text": "one"}\n{"text": "two"}'
    path = write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    assert read(path) == ["one", "two"]


def test_a_file_of_any_other_name_is_one_document_as_it_is(tmp_path):
    for name in ("a.txt", "a.md", "jsonl", "a.jsonl.txt"):
        path = write(tmp_path / name, '{"text": "one"}\n')
        (block,) = documents_of(path, "text")
        assert block == Block(b'{"text": "one"}\n', str(path), 0, ends_document=True)
    assert list(documents_of(write(tmp_path / "empty.txt", ""), "text")) == []


def test_a_byte_order_mark_at_the_beginning_is_passed_over(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '\ufeff{"text": "one"}\n')) == ["one"]


def test_the_text_may_have_another_key(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"content": "one", "text": 3}\n')
    assert read(path, "content") == ["one"]


GOOD = b'{"text": "good"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", " is no JSON: Expecting property name enclosed in double quotes, at column 2"),
        (b'{"text": "a"} x', " is no JSON: Extra data, at column 15"),
        (b'["text"]', " is no JSON object with a 'text': ['text']"),
        (b"null", " is no JSON object with a 'text': null"),
        (b'{"text": 3}', ": its 'text' is no text: 3"),
        (b'{"text": null}', ": its 'text' is no text: null"),
        (b'{"text": "a\xff"}', ": byte 11 of it is 0xff, which is not UTF-8"),
        (
            b'{"text": "a\\ud800b"}',
            ": character 2 of its 'text' is half of a surrogate pair, which is no text",
        ),
        (b"[" * 10**5, " is no JSON that can be read: "),
        (b"1" * 10**5, " is no JSON object with a 'text': "),
        (
            b'{"id": 1, "body": "x"}',
            " has no key 'text', but 'id', 'body'; YAML key text_key, gin parameter "
            "load_corpus.text_key, names the one with the text",
        ),
        (b"{}", " has no key 'text', but none; YAML key text_key"),
    ],
)
def test_a_line_that_is_no_document_is_refused_by_its_number(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", GOOD * 1200 + line + b"\n" + GOOD)
    with pytest.raises(InputError) as error:
        read(path)
    assert error.value.message.startswith(f"{path}: line 1,201{message}")
    assert "\n" not in error.value.message


@pytest.mark.parametrize("end", [b"", b"\n" + GOOD])
def test_a_line_that_is_too_long_is_refused_before_it_is_read(tmp_path, monkeypatch, end):
    monkeypatch.setattr(documents_module, "LONGEST_LINE", 1000)
    monkeypatch.setattr(documents_module, "_READ_BYTES", 100)
    good = json.dumps({"text": "x" * 985}).encode()
    path = write(tmp_path / "a.jsonl", good + b"\n" + good + b" " * 10**5 + end)
    with pytest.raises(InputError) as error:
        read(path)
    assert error.value.message == (
        f"{path}: line 2 has more than 1,000 bytes, the most that one may have: split the document"
    )


def test_what_was_read_of_the_file_is_told(tmp_path):
    content = GOOD * 100_000
    for name in ("a.jsonl", "b.jsonl.gz", "c.txt"):
        path = write(tmp_path / name, gzip.compress(content) if ".gz" in name else content)
        told = []
        assert sum(1 for _ in documents_of(path, "text", told.append)) >= 1
        assert sum(told) == path.stat().st_size


@given(st.lists(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=3), min_size=1))
def test_documents_are_counted_whatever_blocks_they_are_in(documents):
    counter, other = DocumentCounter(), DocumentCounter()
    for blocks in documents:
        for number, data in enumerate(blocks, 1):
            counter.add(Block(data, "a", 0, ends_document=number == len(blocks)))
        other.add(Block(b"".join(blocks), "a", 0, ends_document=True))
    assert counter.found().n_documents == len(documents)
    assert counter.found()[:2] == other.found()[:2]
    assert counter.found().smallest_key <= counter.found().largest_key


def test_other_lengths_are_other_documents():
    def lengths(*documents):
        counter = DocumentCounter()
        for data in documents:
            counter.add(Block(data, "a", 0, ends_document=True))
        return counter.found().lengths

    assert lengths(b"ab", b"c") != lengths(b"a", b"bc") != lengths(b"abc")


def test_a_digest_may_tell_where_documents_end():
    def digest(tells_documents, *documents):
        with TextDigest(tells_documents) as found:
            for data in documents:
                found.add(Block(data, "a", 0, ends_document=True))
            return found.hexdigest()

    assert digest(False, b"ab", b"c") == digest(False, b"a", b"bc") == digest(False, b"abc")
    assert digest(True, b"ab", b"c") == digest(False, b"ab\0c\0")


def test_a_number_of_any_length_may_stand_beside_a_text(tmp_path):
    huge = "9" * 5000
    path = write(
        tmp_path / "a.jsonl", f'{{"id": {huge}, "text": "a"}}\n{{"text": "b", "x": -{huge}}}'
    )
    assert read(path) == ["a", "b"]
    with pytest.raises(InputError, match="line 1: its 'id' is no text"):
        read(path, "id")
    write(path, f'{{"id": {huge}, "text": "a"')
    with pytest.raises(InputError, match=r"line 1 is no JSON: .* column"):
        read(path)
