"""What python-binary-memcached's tests ask of whoever runs them; their own file is not in the distribution."""

import os

import pytest

IPV6_PORT = int(os.environ["SUITE_IPV6_PORT"] or 0)


@pytest.fixture
def memcached_ipv6():
    if not IPV6_PORT:
        pytest.skip("this machine has no IPv6")


@pytest.fixture
def memcached_sasl():
    return int(os.environ["SUITE_SASL_PORT"]), "user", "password"
