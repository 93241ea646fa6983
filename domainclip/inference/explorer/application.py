"""The addresses of the page and their answers."""

from __future__ import annotations

from http import HTTPStatus
from threading import Lock
from urllib.parse import parse_qs

from domainclip.errors import DomainclipError, one_line
from domainclip.inference.explorer import page, selection_table, typed_classes, view
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.local_server import Reply
from domainclip.inference.explorer.thumbnails import Thumbnails

_FILES = {
    "explore.js": ("text/javascript; charset=utf-8", page.script),
    "explore.css": ("text/css; charset=utf-8", page.style_sheet),
    "icon.svg": ("image/svg+xml", page.icon),
}


class Application:
    """Answers requests, one at a time: models and caches are shared."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer, self.lock = explorer, Lock()
        self.thumbnails = Thumbnails(explorer.explored)

    def __call__(self, path: str, query: str) -> Reply | None:
        """The answer of a path below the token; None where there is no such page."""
        if path in _FILES:
            kind, read = _FILES[path]
            return Reply(read().encode(), kind)
        if path == "image":
            return self._image(query)
        if path not in ("", "detail", "selection.csv", "classes.yaml"):
            return None
        with self.lock:
            try:
                return self._computed(path, query)
            except DomainclipError as error:
                text = page.render_error(self.explorer, one_line(str(error)))
                return Reply(text.encode(), status=HTTPStatus.BAD_REQUEST)

    def _computed(self, path: str, query: str) -> Reply:
        asked = view.parse(query)
        if path == "detail":
            return Reply(page.render_detail(self.explorer, asked).encode())
        if path == "classes.yaml":
            text = typed_classes.as_file(self.explorer.classes(asked))
            return Reply(text.encode(), "application/yaml; charset=utf-8", file=path)
        if path == "selection.csv":
            return Reply(
                ("\ufeff" + self._selection(asked, query)).encode(), "text/csv; charset=utf-8", file=path
            )
        return Reply(page.render(self.explorer, asked).encode())

    def _selection(self, asked: view.View, query: str) -> str:
        compared = self.explorer.compared(asked)
        size = self.explorer.explored.size
        rows = [row for row in view.ticked(query) if row < size]
        chosen = rows or self.explorer.rows(asked, compared).tolist()
        return selection_table.selection_csv(self.explorer, asked, compared, chosen)

    def _image(self, query: str) -> Reply | None:
        """An image: decoded beside other requests, as it needs no model."""
        fields = {key: values[-1] for key, values in parse_qs(query).items()}
        row, side = fields.get("row", ""), fields.get("side", "")
        if not (row.isdigit() and side.isdigit()) or len(row + side) > 24:
            return None
        jpeg = self.thumbnails.jpeg(int(row), int(side))
        return None if jpeg is None else Reply(jpeg, "image/jpeg")
