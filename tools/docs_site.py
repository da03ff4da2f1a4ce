"""Builds the site of the documentation: `python tools/docs_site.py [FOLDER]`.

Its pages are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md, and every file that they link to, each at the place that
it has in the repository: so a link that works in the repository works on the site, and neither needs the other's address.
Nothing is fetched. FOLDER is build/docs if not given; the site is FOLDER/site, which opens from the folder, without a server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = "zensical.toml"
STYLE = "docs/site.css"
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def pages(root: Path = ROOT) -> list[Path]:
    """What is on the site by its own right, relative to the root."""
    return [Path(name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
        path.relative_to(root) for path in (root / "docs").glob("*.md"))


def linked(root: Path = ROOT) -> list[Path]:
    """The pages and every file of the repository that they or pages among those link to, relative to the root.

    Raises:
        SystemExit: a link leads to no file of the repository; names the page and the link.
    """
    found = pages(root)
    for page in found:  # grows while it is gone through
        if page.suffix != ".md":
            continue
        for link in _LINK.findall(_CODE.sub("", (root / page).read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", link):
                continue
            target = (root / page.parent / link).resolve()
            if not (target.is_file() and target.is_relative_to(root.resolve())):
                raise SystemExit(f"{page} links to {link}: that is no file of the repository")
            if (path := target.relative_to(root.resolve())) not in found:
                found.append(path)
    return found


def main(argv: Sequence[str]) -> int:
    """Copy, and let Zensical build."""
    folder = Path(argv[0]) if argv else ROOT / "build" / "docs"
    for old in ("pages", "site"):
        shutil.rmtree(folder / old, ignore_errors=True)
    for path in linked():
        (folder / "pages" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / "pages" / path)
    shutil.copy(ROOT / STYLE, folder / "pages" / STYLE)
    shutil.copy(ROOT / CONFIG, folder)
    return build(folder)


def build(folder: Path) -> int:
    """Make FOLDER/site of FOLDER/pages; the exit status: a page or an anchor that does not exist is an error."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(folder / CONFIG)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
