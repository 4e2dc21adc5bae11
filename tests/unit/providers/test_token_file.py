"""A bearer token that somebody else keeps fresh."""

import os

import pytest

from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.providers.token_file import MAX_TOKEN_BYTES, TokenFile


def test_requests_carry_the_token_of_the_file_as_it_is_then(tmp_path):
    file = tmp_path / "token"
    file.write_text("first\n")
    sign = TokenFile(str(file))
    before = sign("/path", b"{}")
    fresh = tmp_path / "fresh"
    fresh.write_text("second\n")
    fresh.replace(file)

    after = sign("/path", b"{}")

    assert before == [("authorization", "Bearer first")]
    assert after == [("authorization", "Bearer second")]


def test_a_file_that_did_not_change_is_not_read_again(tmp_path):
    file = tmp_path / "token"
    file.write_text("first")
    sign = TokenFile(str(file))
    sign("/", b"")
    stat = file.stat()
    file.write_text("other")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert sign("/", b"") == [("authorization", "Bearer first")]


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"a\nb", b"\xff", b"x" * (MAX_TOKEN_BYTES + 1)]
)
def test_without_a_token_the_attempt_fails_for_our_credentials(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(UpstreamError) as caught:
        TokenFile(str(file))("/", b"")

    assert caught.value.failure is Failure.CREDENTIAL
