"""What URLs of brokers and result stores say of their kind."""

from __future__ import annotations

import pytest

from pytest_manifest.errors import ResultStoreError
from pytest_manifest.stack import health
from pytest_manifest.stack.health import check_stack
from pytest_manifest.urls import StackAddress, kind_of, scheme_of


@pytest.mark.parametrize(
    ("store", "scheme", "kind"),
    [
        ("rediss://h:1/0", "rediss", "rediss"),
        ("DB+postgresql://h/x", "db+postgresql", "db+postgresql"),
        ("django-db", "", "django-db"),
        ("rpc", "", "rpc"),
        ("", "", ""),
    ],
)
def test_a_store_is_known_by_its_scheme_or_its_name(store: str, scheme: str, kind: str) -> None:
    """Celery has names for stores that have no address, and such a name is no scheme."""
    assert (scheme_of(store), kind_of(store)) == (scheme, kind)


def test_a_store_that_has_only_a_name_is_asked_too() -> None:
    """Like django-db: it may be one that is not installed here."""
    address = StackAddress("memory://", "no-such-store", None, is_private=False)
    with pytest.raises(ResultStoreError, match=r"result store no-such-store cannot be used"):
        check_stack(address)


@pytest.mark.parametrize("store", ["", "rpc://", "rpc", "disabled://", "cache+memory://"])
def test_a_store_of_no_server_is_not_asked(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the broker or in this process, or there is none."""
    monkeypatch.setattr(health, "_backend_probe", pytest.fail)
    check_stack(StackAddress("memory://", store, None, is_private=False))
