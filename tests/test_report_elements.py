"""Pieces of HTML: no text from outside is anything but text."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from lm_core.report.elements import Html, details, element, facts, join, table

# What a file can hold; a carriage return is a line feed to any reader of HTML.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))


class Reader(HTMLParser):
    """Collects the elements, their attributes and the texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.names, self.attributes, self.texts = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes

    def handle_data(self, text):
        self.texts.append(text)


@given(texts)
def test_any_text_comes_back_as_it_was(text):
    read = Reader(element("p", text))
    assert read.names == ["p"]
    assert "".join(read.texts) == text


@given(texts)
def test_any_attribute_comes_back_as_it_was(value):
    read = Reader(element("p", title=value))
    assert read.names == ["p"]
    assert read.attributes == [("title", value)]


def test_html_is_not_escaped_twice():
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"
    assert join(["<", Html("<br>")]) == "&lt;<br>"


def test_attributes_may_have_no_value_or_not_be_there():
    assert element("p", hidden=True, class_="a", data_x=False) == '<p hidden class="a"></p>'


def test_a_table_has_its_cells_escaped():
    read = Reader(table(("a", "<b>"), [("1", "<script>"), ("2", element("td", "x", class_="y"))]))
    assert read.names.count("td") == 4
    assert "script" not in read.names
    assert "<script>" in read.texts


def test_facts_and_details_hold_texts():
    assert Reader(facts([("<a>", "<b>")])).texts == ["<a>", "<b>"]
    assert Reader(details("<a>", "<b>")).names == ["details", "summary"]
