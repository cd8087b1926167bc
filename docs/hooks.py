"""What ``make docs`` does besides: it follows links out of ``docs/``, and fails where one is dead.

In the repository ``docs/`` and ``results/`` lie side by side, on the website there is only ``docs/``. So
images elsewhere are copied into the site, and links elsewhere lead to the repository's page. A warning is an
error in ``mkdocs build --strict``.
"""

import logging
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
log = logging.getLogger("mkdocs.hooks")


def on_config(config: Any) -> None:
    """Check the README's links into the repository, which are absolute for the sake of package indexes."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    raw = config.repo_url.replace("github.com", "raw.githubusercontent.com")
    for path in re.findall(rf"(?:{config.repo_url}/(?:blob|tree)|{raw})/main/([^)#\s]+)", text):
        _check(path, "README.md")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links out of ``docs/`` into links that work on the site; check files and API names in the text."""
    where = page.file.src_uri

    def elsewhere(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        if not _check(path, where):
            return match[0]
        if path.endswith((".png", ".svg")):
            if not files.get_file_from_path(path):
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
            return f"]({path})"
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({config.repo_url}/{kind}/main/{path}{anchor})"

    for path in re.findall(r"`([\w/]+\.py)`", markdown):
        if not any((root / path).exists() for root in (ROOT, ROOT / "residual")):
            log.warning("%s: there is no file %s", where, path)
    for name in re.findall(r"^::: (\S+)", markdown, re.M):
        _check_docstring(name, where)
    return re.sub(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)", elsewhere, markdown)


def _check(path: str, where: str) -> bool:
    there = (ROOT / path).exists()
    if not there:
        log.warning("%s: a link leads to %s, which does not exist", where, path)
    return there


def _check_docstring(name: str, where: str) -> None:
    """Warn of a name that does not exist, and of a public one without a docstring."""
    global package
    package = package or griffe.load("residual", search_paths=[ROOT], docstring_parser="google")
    try:
        documented = package[name.removeprefix("residual.")].docstring
    except (KeyError, griffe.AliasResolutionError):
        log.warning("%s: there is no %s", where, name)
        return
    if not documented:
        log.warning("%s: %s has no docstring", where, name)


package: Any = None
