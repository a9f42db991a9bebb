"""Private parts of Flower, the pages about workers."""

from __future__ import annotations

from typing import Any, Final

OPEN_PAGES: Final = ("/metrics", "/healthcheck")


def guard_open_pages() -> None:
    """Have Flower's open pages ask for what its others do; its metrics name tasks and workers.

    To be called before Flower is made, in its process. Relies on ``flower.urls.handlers`` being
    what Flower is made of, and on ``get_current_user`` of a page raising an error, or returning
    None, where nobody may look (Flower 2.2). Test: ``test_compat_flower.py``.
    """
    from flower.urls import handlers

    for number, (pattern, page, *rest) in enumerate(map(_parts, handlers)):
        if pattern in OPEN_PAGES:
            handlers[number] = (pattern, _guarded(page), *rest)


def _parts(handler: Any) -> tuple[Any, ...]:
    """Return a rule that is a tuple as it is, and of an object what does for comparing it."""
    return handler if isinstance(handler, tuple) else (None, None)


def _guarded(page: type[Any]) -> type[Any]:
    from tornado.web import HTTPError

    def prepare(self: Any) -> None:
        """Refuse a request that no other page would answer: status 401."""
        if not self.get_current_user():
            raise HTTPError(401)

    return type(page.__name__, (page,), {"prepare": prepare})
