"""Which internal links and anchors of the built site lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """A page's anchors, and what it links and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Remember what one tag is called and where it leads."""
        for name, value in attributes:
            if name in ("id", "name") and value and tag != "meta":
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def dead(folder: Path) -> list[str]:
    """Page, link and what is missing, for every link that leads nowhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not target.is_relative_to(folder.resolve()) or not target.is_file():
                found.append(f"{path.relative_to(folder)}: {link} leads nowhere")
            elif parts.fragment and target.suffix == ".html":
                there = pages.get(folder / target.relative_to(folder.resolve()))
                if there is not None and unquote(parts.fragment) not in there.anchors:
                    found.append(f"{path.relative_to(folder)}: {link} has no such anchor")
    return found
