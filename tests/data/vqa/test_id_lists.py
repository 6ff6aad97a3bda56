"""Lists of test questions as people publish them."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqabench.data.vqa.id_lists import read_test_ids
from vqabench.errors import InputError

SEVEN_AND_NINE = [
    '{"7": "other", "9": "yes/no"}',
    '{"7": 3, "9": ["a"]}',
    "[7, 9]",
    '["7", "9"]',
    "[7.0, 9.0]",
    "[7, 9, 9, 7]",
    '[{"question_id": 7, "image_id": 1}, {"image_id": 2, "question_id": "9"}]',
    '[{"qid": 7}, {"qid": 9}]',
    '{"questions": [{"question_id": 7}, {"question_id": 9}], "info": {}}',
    '{"annotations": [{"question_id": 7}, {"question_id": 9}]}',
    '{"train": [1, 2], "test": [7, 9]}',
    '{"Train": [1, 2], "Test": ["7", "9"]}',
    '{"train": [1], "val": [2], "test": {"7": "other", "9": "other"}}',
    '{"test": [{"question_id": 7}, {"question_id": 9}]}',
    '{"1": "train", "7": "test", "9": "test", "2": "val"}',
    '[{"qid": 1, "split": "train"}, {"qid": 7, "split": "test"}, {"qid": 9, "split": "test"}]',
    '{"question_id": 7}\n{"question_id": 9}\n',
    '{"question_id": 7, "x": "\u2028"}\n{"question_id": 9}\n',
    "7\n9\n",
    "7\r\n9\r\n",
    " 7 9",
    "7,9",
    "7;9",
    "7.0\n9.0\n",
    "+7\n9\n",
    "question_id\n7\n9\n",
    "test question ids\n7\n9\n",
    "# question_id\n7\n9\n",
    "7\n# a comment\n9\n",
    "question_id,answer_type\n7,other\n9,yes/no\n",
    "image_id,question_id\n1,7\n2,9\n",
    "image_id;Question_ID\n1;7\n2;9\n",
    "image_id\tqid\n1\t7\n2\t9\n",
    "7,other\n9,other\n",
    "other,7\nother,9\n",
    '"question_id","text"\n"7","what, where?"\n"9","why?"\n',
    "question_id,split\n1,train\n7,test\n9,TEST\n",
]


@pytest.mark.parametrize("content", SEVEN_AND_NINE)
def test_ids_are_read_in_every_form(tmp_path: Path, content: str) -> None:
    (tmp_path / "ids").write_text(content, newline="")
    assert read_test_ids(tmp_path / "ids") == {7, 9}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("[]", "holds no ids of test questions"),
        ("{}", "holds no ids of test questions"),
        ('{"test": []}', "holds no ids of test questions"),
        ('{"a": 1}', "key: 'a' is not a question id"),
        ("seven", "line 1: 'seven' is not a question id"),
        ("7\nnine\n", "line 2: 'nine' is not a question id"),
        ("12x\n7\n9\n", "line 1: '12x' is not a question id"),
        ("[7, true]", "entry 2: True is not a question id"),
        ("[7, 9.5]", "entry 2: 9.5 is not a question id"),
        ("[7, null]", "entry 2: None is not a question id"),
        ("[[7], [9]]", "entry 1: a list is not a question id"),
        ("[1e30]", "is not a question id"),
        (f"[{2**70}]", "is not a question id"),
        ('[{"image_id": 7}]', "entry 1: an object without question_id (keys 'image_id')"),
        ('{"train": [7], "val": [9]}', "but no key 'test'"),
        ('{"test": 7}', "test holds 7"),
        ("1,7\n2,9\n", "2 of 2 columns hold only whole numbers"),
        ("1\t7\n2\t9\n", "2 of 2 columns hold only whole numbers"),
        ("1 7\n2 9\n", "2 of 2 columns hold only whole numbers"),
        ("a,b\nc,d\n", "0 of 2 columns hold only whole numbers"),
        ("question_id,split\n7,test\n9,dev\n", "line 3: 'dev' is not a split"),
        ('[{"question_id": 7, "split": "test"}, {"question_id": 9}]', "but not for others"),
        ("split,question_id\ntest,7\ntest\n", "line 3: has only 1 columns"),
        ("#\n#\n", "is not a question id"),
        (f"7,{'a' * 200_000}\n8,b\n", "not a CSV file: field larger"),
        ("[7, 9", "broken JSON"),
        ('{"question_id": 7}\n{"question_id": 9', "line 2: broken JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("7\n9\x00\n", "line 2: '9\\x00' is not a question id"),
    ],
)
def test_what_holds_no_ids_or_leaves_them_open_is_refused_with_the_place(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "ids").write_text(content)
    with pytest.raises(InputError) as raised:
        read_test_ids(tmp_path / "ids")
    assert str(raised.value).startswith(f"{tmp_path / 'ids'}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe7\x00\n\x00", "is in UTF-16"),
        (b"\x80\x04\x95", "neither text nor JSON"),
        (b"\x93NUMPY\x01\x00", "neither text nor JSON"),
    ],
)
def test_other_bytes_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_test_ids(tmp_path / "ids")


def test_a_list_may_be_packed_or_marked(tmp_path: Path) -> None:
    for content in (gzip.compress(b"question_id\n7\n9\n"), b"\xef\xbb\xbf[7, 9]"):
        (tmp_path / "ids").write_bytes(content)
        assert read_test_ids(tmp_path / "ids") == {7, 9}


@settings(deadline=None, max_examples=400)
@given(st.text(alphabet='79,;\t \n#"[]{}:.aq_x', max_size=30) | st.text(max_size=40) | st.binary(max_size=40))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.mktemp("ids") / "ids"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(InputError):
        assert all(-(2**63) <= number < 2**63 for number in read_test_ids(path))
