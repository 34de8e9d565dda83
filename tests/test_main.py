"""`tlkit` as a command: what it lists and refuses, and that all it prints is in the spelling that was used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tlkit
from tlkit import __main__ as command
from tlkit import display
from tlkit.recipes import _links

RECIPES = Path(tlkit.__file__).parent / "recipes"
SCRIPT = "import sys\nfrom tlkit.__main__ import main\nsys.exit(main())\n"


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed program `tlkit`, the first on PATH; this process has been called by it."""
    path = tmp_path / "bin" / "tlkit"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{SCRIPT}", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(path.parent), os.environ["PATH"]]))
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setattr(display, "PROGRAM", [])
    return path


def test_the_commands_are_the_recipes_and_the_listing_has_a_line_for_each(capsys: pytest.CaptureFixture):
    names = [row.name for row in command.COMMANDS]
    assert sorted(names) == sorted(path.stem for path in RECIPES.glob("[a-z]*.py"))
    for argv in ([], ["--help"], ["-h"]):
        assert command.main(argv) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line[:-1] for line in lines if line.endswith(":")] == ["train", "look", "compare", "use", "maintain"]
        assert [line.split()[0] for line in lines if line.startswith("  ")] == names
        assert "usage: tlkit COMMAND [--config FILE] [--NAME VALUE ...]" in lines
        assert max(map(len, lines)) <= 80


def test_the_version(capsys: pytest.CaptureFixture):
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tlkit {tlkit.__version__}\n"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("finetun", "'finetun'; did you mean finetune?"),
        ("find-lr", "'find-lr'; did you mean find_lr?"),
        ("Predict", "'Predict'; did you mean predict?"),
        ("_worker", "'_worker'; tlkit --help lists all"),
        ("--data.path", "'--data.path'; tlkit --help lists all"),
        ("\x1b[31m", r"'\x1b[31m'; tlkit --help lists all"),
        ("../tune", "'../tune'; did you mean tune?"),
    ],
)
def test_an_unknown_command_is_one_line_and_status_2(given: str, says: str, capsys: pytest.CaptureFixture):
    assert command.main([given, "photos"]) == 2
    assert capsys.readouterr() == ("", f"tlkit: error: there is no command {says}\n")


@pytest.mark.parametrize(
    ("called", "spelled"),
    [
        ("{program}", "tlkit"),
        ("bin/../bin/tlkit", "bin/../bin/tlkit"),
        ("/else where/tlkit", "'/else where/tlkit'"),
        (str(RECIPES.parent / "__main__.py"), "python -m tlkit"),
    ],
)
def test_a_recipe_is_run_as_python_runs_it_and_speaks_as_it_was_called(
    called: str, spelled: str, program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", [called.format(program=program), "sync", "--help"])
    monkeypatch.delitem(sys.modules, "tlkit.recipes.sync", raising=False)  # `python -m` would warn of it
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    assert f"usage: {spelled} sync [FOLDER] " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [str(RECIPES / "preview.py"), "--data.path", "my photos", "--views", "3"])
    written = _links.command("finetune", without=["views"]).replace(_links.program("python"), "python")
    assert written == f"{spelled} finetune --data.path 'my photos'"


def test_the_program_and_both_modules_do_the_same(program: Path, tmp_path: Path):
    said = []
    for words in ([str(program)], [sys.executable, "-m", "tlkit"]):
        words = [*words, "cache", "prune", "--store", "none", "--limit", "-1"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
        said.append((done.returncode, done.stdout, done.stderr))
    words = [sys.executable, "-m", "tlkit.recipes.cache", *words[4:]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert said == [(done.returncode, done.stdout, done.stderr)] * 2


@pytest.mark.slow
def test_what_to_do_next_is_in_the_spelling_that_was_used(program: Path, tmp_path: Path):
    words = ["preview", "--photos", "1", "--views", "1", "--augment.rotation", "9"]
    done = subprocess.run([program, *words], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.endswith("\n  tlkit finetune --augment.rotation 9\n")
