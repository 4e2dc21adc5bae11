"""Keys from the configuration."""

import pytest

from trunkline_server.accounts.static_keys import MAX_AUTHORIZATION_CHARS, StaticKey, StaticKeys
from trunkline_server.core.errors import InvalidApiKey
from trunkline_server.core.ports import Caller

KEYS = StaticKeys([StaticKey("shop", "sk-shop-secret"), StaticKey("desk", "sk-desk-secret")])


@pytest.mark.parametrize(
    ("authorization", "key_id"),
    [
        ("Bearer sk-shop-secret", "shop"),
        ("Bearer sk-desk-secret", "desk"),
        ("bearer sk-shop-secret", "shop"),
        ("BEARER  sk-shop-secret ", "shop"),
    ],
)
def test_a_good_key_is_known_by_its_id(authorization, key_id):
    assert KEYS.authenticate(authorization) == Caller(key_id)


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
def test_any_other_is_refused(authorization):
    with pytest.raises(InvalidApiKey) as caught:
        KEYS.authenticate(authorization)

    assert str(caught.value) == "missing or unknown API key"


@pytest.mark.parametrize("authorization", ["", "Bearer anything", "nonsense"])
def test_without_keys_everyone_is_anonymous(authorization):
    assert StaticKeys([]).authenticate(authorization) == Caller("anonymous")


def test_a_key_does_not_show_its_secret():
    shown = repr(StaticKey("shop", "sk-shop-secret"))

    assert "shop" in shown
    assert "sk-shop-secret" not in shown
