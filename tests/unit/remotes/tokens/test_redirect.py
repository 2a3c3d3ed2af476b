"""Which address counts as the answer of a login."""

import pytest

from remotes.tokens.login.redirect import Redirect


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/callback?code=c&state={state}",
        "  /callback?state={state}&code=c&iss=https%3A%2F%2Fid  ",
        "/callback?error=access_denied&state={state}",
    ],
)
async def test_an_answer_with_this_logins_state_is_taken(address):
    redirect = Redirect("http://127.0.0.1:1/callback")
    assert redirect.offer(address.format(state=redirect.state))
    assert (await redirect.answer())["state"] == redirect.state


@pytest.mark.parametrize(
    "address",
    ["", "hello", "/callback?code=c", "/callback?code=c&state=", "/callback?code=c&state=wrong", "/callback?%ff=\x00"],
)
async def test_anything_else_is_not(address):
    redirect = Redirect("http://127.0.0.1:1/callback")
    assert not redirect.offer(address)


async def test_a_parameter_that_comes_twice_is_nobodys():
    redirect = Redirect("http://127.0.0.1:1/callback")
    assert not redirect.offer(f"/callback?code=c&state={redirect.state}&state={redirect.state}")
    assert redirect.offer(f"/callback?code=a&code=b&state={redirect.state}")
    assert not redirect._answer.done()
