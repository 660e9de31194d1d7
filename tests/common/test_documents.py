import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from tshrag_common.documents import MAX_BYTES, Document, format_of, read_document
from tshrag_common.errors import Invalid

names = st.sampled_from(["", "lab.json", "lab.toml", "lab.yaml", "lab"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)  # fmt: skip


def refusal(raw: bytes, name: str = "lab.yaml") -> str:
    with pytest.raises(Invalid) as refused:
        read_document(raw, name)
    return refused.value.line


def test_a_document_keeps_the_line_of_every_value_in_json() -> None:
    text = b'// a\n{"name": "x",\n "loads": {\n  "a": {"path": "p"}, // why\n },\n "l": [1,\n 2,]}'
    found = read_document(text, "lab.json")
    assert found.data == {"name": "x", "loads": {"a": {"path": "p"}}, "l": [1, 2]}
    assert found.lines[("name",)] == 2
    assert found.lines[("loads", "a", "path")] == 4
    assert found.lines[("l", 1)] == 7


def test_a_document_keeps_the_line_of_every_value_in_yaml() -> None:
    found = read_document(b"name: x\nlist:\n  - a: 1\n  - {b: 2}\n", "lab.yaml")
    assert found.data == {"name": "x", "list": [{"a": 1}, {"b": 2}]}
    assert found.lines[("list", 0, "a")] == 3
    assert found.lines[("list", 1, "b")] == 4


def test_a_document_keeps_the_line_of_every_value_in_toml() -> None:
    text = b"""name = "x"
[schedule]
sequence = [
  { load = "a", params = { deep = [[1], [2,
    3]] } }, # with a comment ]
  { cmd = '''two
lines''' },
]
[[metrics]]
key = "k"
[[metrics]]
a.b = 1.5
[metrics.sub]
"odd key" = true
"""
    found = read_document(text, "lab.toml")
    assert found.lines[("schedule", "sequence", 0, "params", "deep", 1, 1)] == 5
    assert found.lines[("schedule", "sequence", 1, "cmd")] == 6
    assert found.lines[("metrics", 1, "a", "b")] == 12
    assert found.lines[("metrics", 1, "sub", "odd key")] == 14


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        ("{}", "lab.json", "json"),
        ("// a\n/* b */ {}", "lab", "json"),
        ("# a\nname = 'x'", "", "toml"),
        ("[table]\na = 1", "", "toml"),
        ("name: x", "lab", "yaml"),
        ("name = 1", "lab.yml", "yaml"),
    ],
)
def test_the_format_is_that_of_the_ending_or_of_the_beginning(
    text: str, name: str, form: str
) -> None:
    assert format_of(text, name) == form


@pytest.mark.parametrize("name", ["lab.yaml", "lab.toml", "lab.json"])
@pytest.mark.parametrize("raw", [b"", b"  \n", b"\n\n"])
def test_row_1_an_empty_document_has_no_content(raw: bytes, name: str) -> None:
    assert refusal(raw, name) == f"profile_empty: {name}: no content"


def test_row_1_comments_are_no_content() -> None:
    assert refusal(b"# nothing\n---\n") == "profile_empty: lab.yaml: no content"
    assert refusal(b"// nothing\n", "lab.json") == "profile_empty: lab.json: no content"


def test_row_2_a_tab_as_indent_is_shown_with_its_line() -> None:
    text = b"a: 1\nb: 2\nc: 3\nd: 4\ne: 5\nf:\n\tg: 1\n"
    assert refusal(text) == "yaml_syntax: lab.yaml:7:1: tab character"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lab.yaml", "\n\n\ntimeout: 1\n\na: 1\n\n\ntimeout: 2\n"),
        ("lab.toml", "\n\n\ntimeout = 1\n\na = 1\n\n\ntimeout = 2\n"),
        ("lab.json", '{\n\n\n"timeout": 1,\n\n"a": 1,\n\n\n"timeout": 2}'),
    ],
)
def test_row_3_a_key_that_stands_twice_is_shown_with_both_lines(name: str, text: str) -> None:
    said = refusal(text.encode(), name)
    assert said == f"duplicate_key: {name}:9: 'timeout', first at 4"


def test_every_key_that_stands_twice_is_named() -> None:
    said = refusal(b'{"a": 1, "a": {"b": 1, "b": 2},\n "c": {"d": 1, "d": 2}}', "x.json")
    assert said.count("duplicate_key") == 3
    assert "duplicate_key: x.toml:2: 't', first at 1" in refusal(b"[t]\n[t]\n", "x.toml")


def test_row_4_aliases_and_anchors_are_refused() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9))
    assert refusal(bomb.encode()) == "yaml_alias: lab.yaml:1: aliases are not allowed"
    assert refusal(b"a: 1\nb: *a", "") == "yaml_alias: aliases are not allowed"


def test_row_5_tags_are_refused() -> None:
    text = b"a: !!python/object:os.system {}\n"
    assert refusal(text) == "yaml_tag: lab.yaml:1: tags are not allowed"
    assert refusal(b"a: !x 1", "") == "yaml_tag: tags are not allowed"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lab.yaml", "[" * 1000),
        ("lab.yaml", "".join(" " * n + "- \n" for n in range(400))),
        ("lab.json", "[" * 1000),
        ("lab.json", '{"a":' * 1000),
        ("lab.toml", "a = " + "[" * 1000),
        ("lab.toml", ".".join(["a"] * 1000) + " = 1"),
        ("lab.toml", "[" + ".".join(["a"] * 40) + "]\nb = {}"),
    ],
)
def test_row_6_a_deep_document_is_refused(name: str, text: str) -> None:
    said = refusal(text.encode(), name)
    assert said.startswith(f"too_deep: {name}:")
    assert said.endswith(": limit 32")


def test_row_7_a_large_document_is_refused_before_it_is_read() -> None:
    said = refusal(b"\xff" * 5_242_880)
    assert said == f"too_large: lab.yaml: 5242880 > {MAX_BYTES} bytes"


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"\xff\xfea\x00", "byte 0xff at offset 0"),
        (b"name: \xe4", "byte 0xe4 at offset 6"),
        (b"name: \x00", "byte 0x00 at offset 6"),
        (b"\xef\xbb\xbfname: x", "byte 0xef at offset 0"),
    ],
)
def test_row_13_what_is_not_utf8_is_shown_with_its_offset(raw: bytes, what: str) -> None:
    assert refusal(raw) == f"encoding: lab.yaml: {what}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("true", True), ("012", "012"), ("1:30", "1:30"),
        ("0x10", 16), ("0o17", 15), ("1e3", 1000.0), ("~", None), ("", None), ("'1'", "1"),
        ("2026-01-31", "2026-01-31"), ("1_000", "1_000"), ("-7", -7), (".5", 0.5), ("=", "="),
    ],
)  # fmt: skip
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read_document(f"key: {text}\n".encode(), "a.yaml").data
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"a": 01}', "json_syntax: a.json:1:7: unexpected '0'"),
        ("a.json", '{"a": 1 "b"', "json_syntax: a.json:1:9: expected ',' or '}'"),
        ("a.json", '{"a": /* b', "json_syntax: a.json:1:7: this comment is not closed"),
        ("a.json", '{"a', "json_syntax: a.json:1:2: this text has no closing quote on its line"),
        ("a.json", "{} {}", "json_syntax: a.json:1:4: the document has ended, but text follows"),
        ("a.json", '{"a":', "json_syntax: a.json:1:6: the document ends too early"),
        ("a.json", "{a: 1}", "json_syntax: a.json:1:2: expected a key in double quotes"),
        ("a.json", '{"a": "\\ud800"}', "json_syntax: a.json:1:7: this text has an escape"),
        ("a.json", '{"a": %s}' % ("9" * 5000), "json_syntax: a.json:1:7: a number of 5000 digits"),
        ("a.toml", "a = ", "toml_syntax: a.toml: Invalid value, at the end"),
        ("a.toml", "\nb = 1 c", "toml_syntax: a.toml:2:7: Expected newline or end of document"),
        ("a.yaml", "a: b: c", "yaml_syntax: a.yaml:1:5: mapping values are not allowed here"),
        ("a.yaml", "a: 1\n---\nb: 2", "yaml_syntax: a.yaml:2:1: a second document begins"),
        ("a.yaml", "? [a]\n: 1", "yaml_syntax: a.yaml:1:3: a key must be text"),
        ("a.yaml", 'a: "\\ud800"', "yaml_syntax: a.yaml:1:4: half a surrogate pair"),
        ("a.yaml", "%YAML 1.1\n---\na: 1", "yaml_syntax: a.yaml:2:1: only YAML 1.2 is read"),
        ("a.yaml", "a: \x07", "yaml_syntax: a.yaml: unacceptable character"),
    ],
)
def test_broken_text_is_one_line_with_its_place(name: str, text: str, said: str) -> None:
    line = refusal(text.encode(), name)
    assert line.startswith(said)
    assert "\n" not in line


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000, "{" * 200_000, '"' * 200_000, "'" * 200_000, "-" * 200_000, "/*" * 100_000,
        "a: " * 60_000, "&a " * 60_000, "\\" * 200_000, '"""' * 60_000 + "\n", "//" * 100_000,
        "[[" * 100_000, "a.b" * 60_000 + "=1", " " * 200_000 + "\t", "?" * 200_000, "!" * 200_000,
        "[" + "x," * 100_000, "[a]\n" * 40_000, "a.b.c.d=1\n" * 20_000, "- x\n" * 60_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.json", "a.toml", "a.yaml"])
def test_a_hostile_document_costs_little(text: str, name: str) -> None:
    began = time.process_time()
    with suppress(Invalid):
        read_document(text.encode(), name)
    assert time.process_time() - began < 5  # not a measure of speed: nothing grows with a power


@given(st.binary(max_size=200), names)
def test_any_bytes_are_a_document_or_a_refusal(raw: bytes, name: str) -> None:
    try:
        assert isinstance(read_document(raw, name), Document)
    except Invalid as refused:
        assert refused.problems


@given(st.text(alphabet="ab:-[]{}\"'#\n =,.01&*!|>?%\\/", max_size=60), names)
def test_any_text_is_a_document_or_a_refusal(text: str, name: str) -> None:
    try:
        read_document(text.encode(), name)
    except Invalid as refused:
        assert all(problem.code and "\n" not in str(problem) for problem in refused.problems)


@given(plain)
def test_what_json_writes_is_read_back_the_same(data: object) -> None:
    raw = json.dumps(data, indent=1).encode()
    assert read_document(raw, "a.json").data == data


@given(st.dictionaries(st.text(max_size=8), plain, min_size=1))
def test_what_json_writes_yaml_reads_the_same(data: object) -> None:
    raw = json.dumps(data).encode()
    if b"\\ud" in raw or b"\\u007f" in raw or len(raw) > 2000:
        return  # YAML spells characters beyond 16 bits in another way
    found = read_document(raw, "a.yaml").data
    assert json.dumps(found) == json.dumps(data)
