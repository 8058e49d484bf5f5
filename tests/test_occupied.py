import re

import pytest

from lm_core.errors import InputError
from lm_core.exchange.occupied import refuse_occupied


def test_a_place_where_nothing_is_will_do(tmp_path):
    refuse_occupied("--to", tmp_path / "some" / "where")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: place.write_text(""), "--to: a file is in the place of {}"),
        (lambda place: place.symlink_to("no"), "--to: a link that leads nowhere is in the place"),
        (lambda place: place.mkdir(), "--to: {0} is there already, if empty; .* such as {0}/model"),
        (lambda place: (place / "a").mkdir(parents=True), "--to: {} is not empty; nothing is over"),
    ],
    ids=["file", "link", "empty", "full"],
)
def test_whatever_is_there_is_named(tmp_path, make, words):
    place = tmp_path / "here"
    make(place)
    with pytest.raises(InputError, match=words.format(re.escape(str(place)))):
        refuse_occupied("--to", place)
