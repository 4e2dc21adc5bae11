"""What callers are told of their limits."""

import pytest

from trunkline_server.core.limits import (
    MAX_QUANTITY,
    MAX_WINDOW_S,
    Demand,
    Limit,
    Standing,
    Verdict,
    rate_limit_headers,
    verdict_of,
)

REQUESTS = Limit("requests", quantity=100, window_s=60, burst=100)
TOKENS = Limit("tokens", quantity=6_000, window_s=60, burst=12_000)


def level(limit: Limit, used: int) -> int:
    """Of a bucket from which so many units were just taken."""
    return used * limit.rate.weight


def allowed(requests_used: int, tokens_used: int) -> Verdict:
    demands = [Demand("key:a:requests", REQUESTS), Demand("key:a:tokens", TOKENS, 500)]
    return verdict_of(demands, [level(REQUESTS, requests_used), level(TOKENS, tokens_used)], [0, 0])


def test_headers_of_two_limits():
    assert list(rate_limit_headers(allowed(58, 500))) == [
        ("ratelimit-limit", "100"),
        ("ratelimit-remaining", "42"),
        ("ratelimit-reset", "35"),
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", "42"),
        ("x-ratelimit-reset", "35"),
        ("ratelimit-policy", '"requests";q=100;w=60, "tokens";q=6000;w=60'),
        ("ratelimit", '"requests";r=42;t=35, "tokens";r=6000;t=5'),
    ]


@pytest.mark.parametrize(
    ("requests_used", "tokens_used", "first"),
    [(50, 500, "100"), (1, 500, "6000"), (0, 0, "100"), (99, 11_999, "6000")],
)
def test_the_first_headers_tell_of_the_limit_of_which_least_is_left(
    requests_used, tokens_used, first
):
    headers = dict(rate_limit_headers(allowed(requests_used, tokens_used)))

    assert headers["ratelimit-limit"] == headers["x-ratelimit-limit"] == first


def test_after_a_refusal_they_tell_of_the_limit_that_refused():
    demands = [Demand("key:a:requests", REQUESTS), Demand("key:a:tokens", TOKENS, 3_000)]
    verdict = verdict_of(demands, [level(REQUESTS, 99), level(TOKENS, 9_500)], [0, 5_000_000])

    headers = dict(rate_limit_headers(verdict))

    assert verdict == Verdict(False, demands[1], 5.0, demands, verdict.levels)
    assert verdict.standings == [
        Standing(demands[0], remaining=1, reset_s=60),
        Standing(demands[1], remaining=2_500, reset_s=95),
    ]
    assert (headers["ratelimit-limit"], headers["ratelimit-remaining"]) == ("6000", "2500")


def test_of_two_that_refuse_the_longer_wait_counts():
    demands = [Demand("a", REQUESTS), Demand("b", TOKENS)]

    verdict = verdict_of(demands, [0, 0], [2_000_000, 1])

    assert (verdict.refused, verdict.retry_after_s) == (demands[0], 2.0)


def test_what_can_never_pass_has_no_time_to_retry():
    demands = [Demand("a", REQUESTS), Demand("b", TOKENS, 12_001)]

    verdict = verdict_of(demands, [0, 0], [2_000_000, None])

    assert verdict[:3] == (False, demands[1], None)


def test_a_debt_is_shown_as_nothing_left():
    headers = dict(rate_limit_headers(allowed(130, 0)))

    assert (headers["ratelimit-remaining"], headers["ratelimit-reset"]) == ("0", "78")


def test_without_a_limit_there_are_no_headers():
    assert not rate_limit_headers(verdict_of([], [], []))


def test_a_share_is_shown_as_the_whole_limit():
    share = Limit("requests", quantity=100, window_s=60, burst=100, processes=4)

    assert (share.rate.burst, share.rate.window_s) == (25, 240)
    assert share.policy == REQUESTS.policy


@pytest.mark.parametrize(
    ("name", "quantity", "window_s", "burst", "processes"),
    [
        ('a";q=1', 1, 1, 1, 1),
        ("", 1, 1, 1, 1),
        ("Requests", 1, 1, 1, 1),
        ("a" * 65, 1, 1, 1, 1),
        ("requests", 0, 1, 1, 1),
        ("requests", MAX_QUANTITY + 1, 1, 1, 1),
        ("requests", 1, MAX_WINDOW_S + 1, 1, 1),
        ("requests", 1, 1, 0, 1),
        ("requests", 1, 1, 1, 0),
        ("requests", 1, 86_400, 367, 1),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(name, quantity, window_s, burst, processes):
    with pytest.raises(ValueError, match="limit"):
        Limit(name, quantity, window_s, burst, processes)


@pytest.mark.parametrize(("used", "remaining", "reset"), [(0, 100, 0), (58, 42, 35), (100, 0, 60)])
def test_headers_of_one_limit(used, remaining, reset):
    verdict = verdict_of([Demand("key:a:requests", REQUESTS)], [level(REQUESTS, used)], [0])

    assert list(rate_limit_headers(verdict)) == [
        ("ratelimit-limit", "100"),
        ("ratelimit-remaining", str(remaining)),
        ("ratelimit-reset", str(reset)),
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", str(remaining)),
        ("x-ratelimit-reset", str(reset)),
        ("ratelimit-policy", '"requests";q=100;w=60'),
        ("ratelimit", f'"requests";r={remaining};t={reset}'),
    ]
