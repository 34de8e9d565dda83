"""What comes from outside: identifiers, text, JSON, archives and sizes."""

import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tlkit import display, untrusted
from tlkit.errors import InvalidInput, Unavailable

WRONG = [
    "", ".", "..", "/etc", "../x", "a/b", "a\\b", "C:\\x", "C:x", "\\\\server\\share", "%2e%2e", "a.b", "a b", "a\n",
    "a\x00", "con", "NUL", "LPT1", "-x", "_x", "x" * 129, "é", "١", "~", "$HOME", "a'b", None, 3, b"ab", ["ab"],
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_identifier_is_refused_in_one_short_line(text):
    with pytest.raises(InvalidInput, match=r"^the id is .*; it must be 1 to 128 letters") as caught:
        untrusted.identifier(text, "the id")
    assert len(str(caught.value)) < 260
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["0", "m-3f", "0f" * 16, "a" * 128, "Run_1"])
def test_identifiers_of_mlflow_pass(text):
    assert untrusted.identifier(text, "the id") == text


def test_a_servers_answer_is_no_wrong_usage():
    with pytest.raises(Unavailable, match="the server's id is '/etc'"):
        untrusted.identifier("/etc", "the server's id", Unavailable)


def test_only_what_lies_directly_below_is_removed(tmp_path: Path):
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours / "run", other, ours / "deep" / "er"):
        folder.mkdir(parents=True)
    (ours / "link").symlink_to(other)
    (other / "kept").touch()
    for wrong in (other, ours / "link", ours / ".." / "other", ours, ours / "deep" / "er", ours / "gone", Path("/")):
        untrusted.remove(wrong, ours)
    assert (other / "kept").exists()
    assert (ours / "link").is_symlink()
    assert (ours / "deep" / "er").is_dir()
    untrusted.remove(ours / "run", ours)
    assert not (ours / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"), [("[" * 200_000, "nested too deeply"), ("{", "Expecting"), (b"\xff", "codec")]
)
def test_what_is_no_json_is_a_value_error(content, words):
    with pytest.raises(ValueError, match=words):
        untrusted.parse_json(content, "state.json")


def test_json_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(untrusted.jsonfiles, "LONGEST_JSON", 10)
    (tmp_path / "state.json").write_text("[1, 2, 3, 4, 5]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"state.json has 11 bytes, more than 10"):
        untrusted.read_json(tmp_path / "state.json")


def test_a_member_is_read_only_if_it_is_one_and_not_too_large():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", b"1")
        archive.writestr("large", bytes(10**6))
        archive.writestr("twice", b"2")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice", b"3")
    with zipfile.ZipFile(file) as archive:
        assert untrusted.member(archive, "one", 1) == b"1"
        with pytest.raises(ValueError, match="has 1,000,000 bytes, more than 1,000"):
            untrusted.member(archive, "large", 1000)
        with pytest.raises(ValueError, match="holds 2 members twice"):
            untrusted.member(archive, "twice")
        with pytest.raises(KeyError):
            untrusted.member(archive, "none")


def test_what_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(untrusted.memory, "available_memory", lambda: 1000)
    untrusted.check_memory(500, "it")
    with pytest.raises(InvalidInput, match=r"it would take 0.0 GB of memory, more than half"):
        untrusted.check_memory(501, "it")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("caf\u00e9 猫 🐈", "caf\u00e9 猫 🐈"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("cat\u202egpj.exe", "cat\\u202egpj.exe"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\u2029c\u200fd\ufeff", "a\\u2028b\\u2029c\\u200fd\\ufeff"),
        ("no\u00a0break \u3000 \ue000", "no\u00a0break \u3000 \ue000"),  # blanks and private letters steer nothing
        ("\u0646\u200c\u0645 \U0001f469\u200d\U0001f52c", "\u0646\u200c\u0645 \U0001f469\u200d\U0001f52c"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, plain):
    assert display.shown(text) == plain
    display.shown(text).encode()


def test_lines_stay_lines_and_nothing_else_does(capsys):
    display.say("two\nlines\x1b[31m", 3)
    display.say("wrong\r", error=True)
    assert capsys.readouterr() == ("two\nlines\\x1b[31m 3\n", "wrong\\r\n")


def test_markup_is_shown_as_it_is():
    assert display.markdown("<img src=x>[a](b) `c` **d**\n# e") == (r"&lt;img src=x&gt;\[a\](b) \`c\` \*\*d\*\*\\n\# e")
    assert display.markdown("@me :smile: http://a $x$ ~~s~~ a|b") == (
        r"&#64;me &#58;smile: http&#58;//a &#36;x&#36; \~\~s\~\~ a\|b"
    )
    assert display.markdown("www.a.b") == "www&#46;a.b"


@pytest.mark.parametrize(
    ("text", "written"),
    [("1. a", r"1\. a"), (" 12) a", r" 12\) a"), ("- a - b", r"\- a - b"), ("+ a", r"\+ a"), ("(a) b", r"\(a) b")],
)
def test_what_makes_a_list_or_a_link_at_the_beginning_is_plain(text: str, written: str):
    assert display.markdown(text) == written


def test_a_sentence_stays_as_it_is():
    sentence = "Accuracy: 0.77 (95 % interval 0.71 to 0.82), of 210 photos; k-means."
    assert display.markdown(sentence) == sentence


def test_no_backtick_ends_a_piece_of_code():
    texts = ["cat", "`", "a`b", "``a```b", "\x1b"]
    assert [display.code(text) for text in texts] == ["`cat`", "`` ` ``", "`` a`b ``", "```` ``a```b ````", r"`\x1b`"]


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="bash reads what is quoted")
@pytest.mark.parametrize("word", [b"it's", b"a b\n\\\x1b[2J\x07e", b"caf\xe9ab", "\u202e$HOME `ls` 猫".encode()])
def test_a_quoted_word_is_one_line_and_read_by_a_shell_as_it_was(word: bytes):
    quoted = display.quoted(os.fsdecode(word))
    assert display.shown(quoted) == quoted
    said = subprocess.run([str(BASH), "-c", f"printf %s {quoted}"], capture_output=True, check=True)
    assert said.stdout == word
