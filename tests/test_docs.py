"""The pages of docs/: their code runs, and it makes the pictures that they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> str:
    """The Python of a page, each line where it stands there, so that a traceback tells the page's line."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = "```"
        lines.append(line if inside and line != "```" else "")
    return "\n".join(lines)


def test_there_are_pages_with_code():
    assert PAGES
    assert all(blocks(page).strip() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_makes_its_pictures(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page), str(page), "exec"), {"__name__": "page"})  # noqa: S102
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert (tmp_path / picture).is_file(), f"{page.name} shows {picture}, which its code does not make"
        assert (page.parent / picture).is_file(), f"{page.name} shows {picture}, which is not there"
        assert (page.parent / picture).stat().st_size < 100_000


ROOT = DOCS.parent
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/])((?:tlkit|tests|benchmarks|recipes|docs)/[\w/]+\.(?:py|md|yaml|h5))\b", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if ":" not in link]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing + [link for link in links if not (page.parent / link).exists()]
