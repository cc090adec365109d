"""Hooks of the site: pages that lie at the top of the repository, and links where documents name one another.

In a checkout the documents name each other as `docs/data.md`, which reads well as text; on the site that is a link.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
AT_THE_TOP = {"README.md": "index.md"} | {name: name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")}


def on_files(files: Files, config: Any) -> Files:
    for name, page in AT_THE_TOP.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, files: Files, **_: Any) -> str:
    inner = [file.src_uri for file in files.documentation_pages() if "/" not in file.src_uri]
    pages = AT_THE_TOP | {f"docs/{name}": name for name in inner}

    def link(match: re.Match[str]) -> str:
        name = match[1]
        return f"[{name}]({pages[name]})" if name in pages else match[0]

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)  # programs stay as they are
    blocks[::2] = [re.sub(r"`((?:docs/)?[\w-]+\.md)`", link, block) for block in blocks[::2]]
    return re.sub(r"(!?\[[^\]]*\]\()docs/", r"\1", "".join(blocks))
