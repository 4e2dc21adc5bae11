"""Keys from the configuration."""

import pytest

from trunkline_server.accounts.callers import MAX_AUTHORIZATION_CHARS, Callers, StaticKey
from trunkline_server.core.errors import InvalidApiKey


def callers(*keys: StaticKey) -> Callers:
    return Callers(static=keys, plans={}, storage=None, pepper=b"", now_us=lambda: 0)


KEYS = callers(StaticKey("shop", "sk-shop-secret"), StaticKey("desk", "sk-desk-secret"))


@pytest.mark.parametrize(
    ("authorization", "key_id"),
    [
        ("Bearer sk-shop-secret", "shop"),
        ("Bearer sk-desk-secret", "desk"),
        ("bearer sk-shop-secret", "shop"),
        ("BEARER  sk-shop-secret ", "shop"),
    ],
)
async def test_a_good_key_is_known_by_its_id(authorization, key_id):
    assert (await KEYS.authenticate(authorization)).key_id == key_id


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "sk-shop-secret",
        "Basic sk-shop-secret",
        "Bearer sk-shop-secre",
        "Bearer sk-shop-secret2",
        "Bearer SK-SHOP-SECRET",
        "Bearer sk-shop-secret sk-desk-secret",
        "Bearer \udcff",
        "Bearer " + "x" * MAX_AUTHORIZATION_CHARS,
    ],
)
async def test_any_other_is_refused(authorization):
    with pytest.raises(InvalidApiKey) as caught:
        await KEYS.authenticate(authorization)

    assert str(caught.value) == "missing or unknown API key"


@pytest.mark.parametrize("authorization", ["", "Bearer anything", "nonsense"])
async def test_without_keys_everyone_is_anonymous(authorization):
    assert (await callers().authenticate(authorization)).key_id == "anonymous"


def test_a_key_does_not_show_its_secret():
    shown = repr(StaticKey("shop", "sk-shop-secret"))

    assert "shop" in shown
    assert "sk-shop-secret" not in shown
