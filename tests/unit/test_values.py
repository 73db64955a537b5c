"""Each type of key takes what is right, in one normal form, and says in a sentence what is wrong."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.values import (
    Address,
    CAFile,
    Count,
    HostName,
    IPNetwork,
    Name,
    OptionalAddress,
    PathPrefix,
    Positive,
    Seconds,
    SecondsOrZero,
    StateUrl,
    TCPAddress,
    UnixAddress,
    Url,
)

RIGHT: list[tuple[Any, object, object]] = [
    (Address, "127.0.0.1:8080", TCPAddress("127.0.0.1", 8080)),
    (Address, "localhost:0", TCPAddress("localhost", 0)),
    (Address, "my-host.example:65535", TCPAddress("my-host.example", 65535)),
    (Address, "[::1]:80", TCPAddress("::1", 80)),
    (Address, "unix:/run/penstock.sock", UnixAddress("/run/penstock.sock")),
    (Address, TCPAddress("::", 1), TCPAddress("::", 1)),
    (OptionalAddress, "", None),
    (OptionalAddress, None, None),
    (OptionalAddress, "localhost:1", TCPAddress("localhost", 1)),
    (PathPrefix, "/", "/"),
    (PathPrefix, "/v1", "/v1"),
    (PathPrefix, "/v1/a%20b", "/v1/a%20b"),
    (HostName, "api.example.com", "api.example.com"),
    (HostName, "10.0.0.1", "10.0.0.1"),
    (HostName, "[::1]", "[::1]"),
    (Url, "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    (Url, "HTTPS://API.Example.com/v1/", "https://api.example.com/v1"),
    (Url, "http://[::1]:80/", "http://[::1]:80"),
    (Url, "http://model_server", "http://model_server"),
    (StateUrl, "memory://", "memory://"),
    (StateUrl, "redis://127.0.0.1", "redis://127.0.0.1"),
    (StateUrl, "REDISS://[::1]:6379/15/", "rediss://[::1]:6379/15"),
    (StateUrl, "unix:///run/redis.sock", "unix:///run/redis.sock"),
    (IPNetwork, "10.0.0.0/8", ip_network("10.0.0.0/8")),
    (IPNetwork, "192.0.2.7", ip_network("192.0.2.7/32")),
    (IPNetwork, "fd00::1", ip_network("fd00::1/128")),
    (IPNetwork, ip_network("fd00::/8"), ip_network("fd00::/8")),
    (Seconds, 1, 1.0),
    (Seconds, 0.5, 0.5),
    (SecondsOrZero, 0, 0.0),
    (Positive, 1, 1),
    (Count, 0, 0),
    (Name, "gpt-4.1_mini", "gpt-4.1_mini"),
]


@pytest.mark.parametrize(("type", "given", "expected"), RIGHT)
def test_right(type: Any, given: object, expected: object) -> None:
    assert TypeAdapter(type).validate_python(given) == expected


ADDRESS = 'must be "host:port" with a port from 0 to 65535, "[v6]:port" or "unix:/path"'
PATH = 'must be a path such as "/v1", of printable ASCII, without "?", "#" or "\\"'
SPELT = "must be written in its normal form"
HOST = "must be a host name or an IP address (IPv6 in brackets); patterns are not supported"
HOST_SPELT = "must be written in lower case, without port and final dot"
URL_HOST = "has no valid host and port"
STATE_URL = 'must be "memory://", "redis://host:port/database" ("rediss://" with TLS) or "unix:///path/of/redis.sock"'

NO_NETWORK = 'must be an IP address or a network such as "10.0.0.0/8" or "fd00::/8"'
NOT_NORMAL = "must be written in its normal form, with no bits set below the network's"

WRONG: list[tuple[Any, object, str, str]] = [
    (Address, 8080, 'must be text such as "127.0.0.1:8080"', ""),
    (Address, None, 'must be text such as "127.0.0.1:8080"', ""),
    (Address, "", ADDRESS, ""),
    (Address, "localhost", ADDRESS, ""),
    (Address, "localhost:", ADDRESS, ""),
    (Address, "localhost:http", ADDRESS, ""),
    (Address, "localhost:65536", ADDRESS, ""),
    (Address, "localhost:-1", ADDRESS, ""),
    (Address, "localhost:\u0661", ADDRESS, ""),
    (Address, ":80", 'needs a host before the port: "127.0.0.1:80" for this machine, "0.0.0.0:80" for all', ""),
    (Address, "::1:80", 'needs brackets around an IPv6 address: "[::1]:80"', ""),
    (Address, "[::g]:80", "has a host that is neither a name nor an IP address", ""),
    (Address, "a b:80", "has a host that is neither a name nor an IP address", ""),
    (Address, "300.0.0.1:80", "has a host that is neither a name nor an IP address", ""),
    (Address, "http://localhost:80", "has a host that is neither a name nor an IP address", ""),
    (Address, "unix:run/x", 'after "unix:" must be an absolute path of at most 107 bytes', ""),
    (Address, "unix:/" + "x" * 107, 'after "unix:" must be an absolute path of at most 107 bytes', ""),
    (PathPrefix, "v1", PATH, ""),
    (PathPrefix, "", PATH, ""),
    (PathPrefix, "/v1?a=b", PATH, ""),
    (PathPrefix, "/ä", PATH, ""),
    (PathPrefix, "/a%2fb", PATH, ""),
    (PathPrefix, "/v1/", SPELT, "/v1"),
    (PathPrefix, "/v1/../v2//x", SPELT, "/v2/x"),
    (PathPrefix, "/%61", SPELT, "/a"),
    (HostName, "API.example.com", HOST_SPELT, "api.example.com"),
    (HostName, "api.example.com:443", HOST_SPELT, "api.example.com"),
    (HostName, "api.example.com.", HOST_SPELT, "api.example.com"),
    (HostName, "[::1]:80", HOST_SPELT, "[::1]"),
    (HostName, "*.example.com", HOST, ""),
    (HostName, "", HOST, ""),
    (HostName, "a..b", HOST, ""),
    (HostName, "-a", HOST, ""),
    (HostName, "1.2.3", HOST, ""),
    (HostName, "a." * 126 + "aa", HOST, ""),
    (Url, "localhost:8000", 'must begin with "http://" or "https://"', ""),
    (Url, "ftp://localhost", 'must begin with "http://" or "https://"', ""),
    (Url, "http://u:secret@h", 'must not hold a user or password; put a key into `credential = "env:NAME"`', ""),
    (Url, "http://h/?key=secret", "must end with the path, without query and fragment", ""),
    (Url, "http://h/#", "must end with the path, without query and fragment", ""),
    (Url, "http://h/a b", "must be printable ASCII without spaces (an international host in its xn-- form)", ""),
    (Url, "http://ä", "must be printable ASCII without spaces (an international host in its xn-- form)", ""),
    (Url, "http://h\n", "must be printable ASCII without spaces (an international host in its xn-- form)", ""),
    (Url, "http://", URL_HOST, ""),
    (Url, "unix:///run/model.sock", 'must begin with "http://" or "https://"', ""),
    (StateUrl, "", STATE_URL, ""),
    (StateUrl, "memory", STATE_URL, ""),
    (StateUrl, "memory://here", STATE_URL, ""),
    (StateUrl, "http://127.0.0.1:6379", STATE_URL, ""),
    (StateUrl, "redis://", STATE_URL, ""),
    (StateUrl, "redis:///1", STATE_URL, ""),
    (StateUrl, "redis://127.0.0.1:6379/one", STATE_URL, ""),
    (StateUrl, "redis://127.0.0.1:6379/1/2", STATE_URL, ""),
    (StateUrl, "redis://127.0.0.1:0", URL_HOST, ""),
    (StateUrl, "redis://-", URL_HOST, ""),
    (StateUrl, "redis://h:99999", "is not a valid URL", ""),
    (StateUrl, "redis://:secret@h", 'must not hold a user or password; put a key into `password = "env:NAME"`', ""),
    (StateUrl, "redis://h?db=1", "must end with the path, without query and fragment", ""),
    (StateUrl, "unix://run/redis.sock", STATE_URL, ""),
    (StateUrl, "unix://", STATE_URL, ""),
    (StateUrl, "unix:///", STATE_URL, ""),
    (StateUrl, "redis://h\n", "must be printable ASCII without spaces (an international host in its xn-- form)", ""),
    (Url, "http://h:0", URL_HOST, ""),
    (Url, "http://1.2.3", URL_HOST, ""),
    (Url, "http://h:99999", "is not a valid URL", ""),
    (Url, "http://[::1", "is not a valid URL", ""),
    (Url, "http://h:80/a/../b/", SPELT, "http://h:80/b"),
    (Url, "http://h/a%2fb", PATH, ""),
    (IPNetwork, "10.0.0.0/33", NO_NETWORK, ""),
    (IPNetwork, "front.example.com", NO_NETWORK, ""),
    (IPNetwork, 7, NO_NETWORK, ""),
    (IPNetwork, "10.1.2.3/8", NOT_NORMAL, "10.0.0.0/8"),
    (IPNetwork, "FD00::/8", NOT_NORMAL, "fd00::/8"),
    (CAFile, "ca.pem", "must be an absolute path", ""),
    (CAFile, "/nonexistent/ca.pem", "cannot be read: no such file or directory", ""),
    (Name, "", "must be 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first", ""),
    (Name, "a b", "must be 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first", ""),
    (Name, "a" * 65, "must be 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first", ""),
]


@pytest.mark.parametrize(("type", "given", "message", "suggestion"), WRONG)
def test_wrong(type: Any, given: object, message: str, suggestion: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(type).validate_python(given)
    (details,) = raised.value.errors()
    error = details["ctx"]["error"]
    assert (str(error), getattr(error, "suggestion", "")) == (message, suggestion)


QUANTITIES: list[tuple[Any, float]] = [
    (Seconds, 0.0),
    (Seconds, -1.0),
    (Seconds, float("nan")),
    (Seconds, float("inf")),
    (SecondsOrZero, -0.5),
    (SecondsOrZero, float("inf")),
    (Positive, 0),
    (Count, -1),
]


@pytest.mark.parametrize(("type", "given"), QUANTITIES)
def test_no_such_quantity(type: Any, given: float) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(type).validate_python(given)


def test_a_file_of_certificates_has_some(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    with pytest.raises(ValidationError, match="holds no certificates in PEM form"):
        TypeAdapter(CAFile).validate_python(str(path))


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:80", "unix:/run/x"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    assert str(TypeAdapter[TCPAddress | UnixAddress](Address).validate_python(text)) == text
