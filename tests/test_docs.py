"""The site of the documentation: it builds without a warning, every page can be reached, nothing is loaded from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tools import docs_site

ROOT = docs_site.ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as people build it."""
    folder = tmp_path_factory.mktemp("docs")
    ran = subprocess.run([sys.executable, ROOT / "tools" / "docs_site.py", folder], cwd=ROOT, capture_output=True, text=True,
                         timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "site"


def in_nav(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for inside in entry.values():
                yield from in_nav(inside if isinstance(inside, list) else [inside])


def test_every_page_is_in_the_nav_once() -> None:
    nav = list(in_nav(tomllib.loads((ROOT / docs_site.CONFIG).read_text(encoding="utf-8"))["project"]["nav"]))
    assert sorted(nav) == sorted(path.as_posix() for path in docs_site.linked() if path.suffix == ".md")
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= set(nav)


def test_every_link_of_the_site_leads_somewhere(built: Path) -> None:
    pages = [path for path in built.rglob("*.html") if path.name != "404.html"]  # that one is for a server's root
    assert {"index.html", "docs/study.html", "sweeps/LOG.html"} <= {path.relative_to(built).as_posix() for path in pages}
    missing = {(page.relative_to(built).as_posix(), link) for page in pages
               for link in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text(encoding="utf-8"))
               if not urlsplit(link).scheme and (path := unquote(urlsplit(link).path)) and path != "."
               and not (page.parent / path).exists()}
    assert not missing


def test_nothing_is_loaded_from_another_host(built: Path) -> None:
    loaded = [tag for page in built.rglob("*.html")
              for tag in re.findall(r"<(?:script|img|iframe|link)\b[^>]*>", page.read_text(encoding="utf-8"))
              if re.search(r'(?:src|href)="?(?:https?:)?//', tag) and 'rel="canonical"' not in tag]
    assert not loaded


def test_formulas_are_drawn(built: Path) -> None:
    formulas = len(re.findall(r"(?<!\$)\$[^$]+\$|\$\$[^$]+\$\$", (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")))
    page = (built / "docs" / "concepts.html").read_text(encoding="utf-8")
    assert page.count("<math") == formulas > 10 and "$" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(("text", "said"), [
    ("[there](docs/nowhere.md)", "README.md links to docs/nowhere.md: that is no file of the repository"),
    ("[there](sweeps)", "README.md links to sweeps: that is no file of the repository"),
    ("![there](../outside.png)", "README.md links to ../outside.png: that is no file of the repository")])
def test_a_link_to_nowhere_is_told(text: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sweeps", tmp_path / "root" / "sweeps")
    (tmp_path / "outside.png").write_bytes(b"")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        (tmp_path / "root" / name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=re.escape(said)):
        docs_site.linked(tmp_path / "root")


def test_an_anchor_that_is_not_there_fails_the_build(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.parent / "pages", tmp_path / "pages")
    shutil.copy(ROOT / docs_site.CONFIG, tmp_path)
    with (tmp_path / "pages" / "README.md").open("a", encoding="utf-8") as page:
        page.write("\n[there](docs/study.md#nowhere)\n")
    assert docs_site.build(tmp_path) != 0
