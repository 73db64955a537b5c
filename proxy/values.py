"""Types of configuration keys: addresses, URLs, host names, paths, quantities; each with a sentence for what is wrong.

Pure, but for `CAFile`, which reads its file. Usable in any configuration model, a policy's too. No message repeats a
value that could hold a secret.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from .errors import RequestError
from .forwarding import Network
from .routing import host_name, normalise_path
from .secrets import reason


class Table(BaseModel):
    """A table of the configuration: no unknown keys, no conversions between types; frozen once read."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """Where to listen. Port 0 is any free port; an IPv6 `host` stands without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


MEMORY = "memory://"

_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
_SUN_PATH_BYTES = 107  # sockaddr_un.sun_path without its final NUL (unix(7))


def _address(given: object) -> TCPAddress | UnixAddress:
    if isinstance(given, TCPAddress | UnixAddress):
        return given
    if not isinstance(given, str):
        raise ValueError('must be text such as "127.0.0.1:8080"')
    if given.startswith("unix:"):
        path = given.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(path.encode()) > _SUN_PATH_BYTES:
            raise ValueError(f'after "unix:" must be an absolute path of at most {_SUN_PATH_BYTES} bytes')
        return UnixAddress(path)
    host, colon, port = given.rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise ValueError('must be "host:port" with a port from 0 to 65535, "[v6]:port" or "unix:/path"')
    if not host:
        raise ValueError(f'needs a host before the port: "127.0.0.1:{port}" for this machine, "0.0.0.0:{port}" for all')
    bracketed = host.startswith("[") and host.endswith("]")
    if not bracketed and _is_host(f"[{host}]"):
        raise ValueError(f'needs brackets around an IPv6 address: "[{host}]:{port}"')
    if not _is_host(host):
        raise ValueError("has a host that is neither a name nor an IP address")
    return TCPAddress(host[1:-1] if bracketed else host, int(port))


def _is_host(host: str) -> bool:
    """Whether `host` is a host name, an IPv4 address or an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    v6 = host.startswith("[") and host.endswith("]")
    if not v6 and not host.rpartition(".")[2].isdecimal():  # a last label of digits can only be an IPv4 address
        return len(host) <= 253 and _HOST_NAME.fullmatch(host.lower()) is not None
    try:
        _ = ipaddress.IPv6Address(host[1:-1]) if v6 else ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _optional_address(given: object) -> TCPAddress | UnixAddress | None:
    """An address, or "" for none."""
    return None if given in ("", None) else _address(given)


def _path(given: str) -> str:
    normal = _normal_path(given)
    if given != normal:
        raise MisspeltError("must be written in its normal form", normal)
    return given


def _normal_path(given: str) -> str:
    """As requests' paths are spelt before they are matched, and without a final slash."""
    try:
        return normalise_path(given).rstrip("/") or "/"
    except RequestError:
        raise ValueError('must be a path such as "/v1", of printable ASCII, without "?", "#" or "\\"') from None


def _host(given: str) -> str:
    if given != host_name(given) and _is_host(host_name(given)):
        raise MisspeltError("must be written in lower case, without port and final dot", host_name(given))
    if not _is_host(given):
        raise ValueError("must be a host name or an IP address (IPv6 in brackets); patterns are not supported")
    return given


def _split_url(given: str, secret_key: str) -> tuple[str, str, str]:
    """Scheme, "host" or "host:port", and path. No message repeats the URL: there may be a password in it, which belongs
    into `secret_key`."""
    if not given.isascii() or not given.isprintable() or " " in given:
        raise ValueError("must be printable ASCII without spaces (an international host in its xn-- form)")
    try:
        parts = urlsplit(given)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if "@" in parts.netloc:
        raise ValueError(f'must not hold a user or password; put a key into `{secret_key} = "env:NAME"`')
    if "?" in given or "#" in given:
        raise ValueError("must end with the path, without query and fragment")
    authority = f"[{host}]" if ":" in host else host
    if parts.netloc and (not _is_host(authority) or port == 0):
        raise ValueError("has no valid host and port")
    return parts.scheme, f"{authority}{'' if port is None else f':{port}'}", parts.path


def _url(given: str) -> str:
    """The URL without a final slash."""
    scheme, authority, path = _split_url(given, "credential")
    if scheme not in ("http", "https"):
        raise ValueError('must begin with "http://" or "https://"')
    if not authority:
        raise ValueError("has no valid host and port")
    normal_path = _normal_path(path or "/").rstrip("/")
    normal = f"{scheme}://{authority}{normal_path}"
    if normal_path != path.rstrip("/"):
        raise MisspeltError("must be written in its normal form", normal)
    return normal


_DATABASE = re.compile(r"(/[0-9]{1,5})?")


def _state_url(given: str) -> str:
    """The URL without a final slash."""
    if given == MEMORY:
        return given
    scheme, authority, path = _split_url(given, "password")
    if scheme == "unix" and not authority and len(path) > 1:
        return f"unix://{path}"
    database = path.rstrip("/")
    if scheme not in ("redis", "rediss") or not authority or not _DATABASE.fullmatch(database):
        raise ValueError(
            f'must be "{MEMORY}", "redis://host:port/database" ("rediss://" with TLS) or "unix:///path/of/redis.sock"'
        )
    return f"{scheme}://{authority}{database}"


def _network(given: object) -> Network:
    if isinstance(given, Network):
        return given
    try:
        network = ipaddress.ip_network(str(given), strict=False)
    except ValueError:
        raise ValueError('must be an IP address or a network such as "10.0.0.0/8" or "fd00::/8"') from None
    if str(given) not in (str(network), str(network.network_address)):  # an address alone is the network of just itself
        raise MisspeltError("must be written in its normal form, with no bits set below the network's", str(network))
    return network


def _ca_file(given: str) -> str:
    """Read here, so that a wrong file is found before the first connection. A relative path would depend on where
    the process was started."""
    if not given.startswith("/"):
        raise ValueError("must be an absolute path")
    try:
        ssl.create_default_context(cafile=given)
    except ssl.SSLError:
        raise ValueError("holds no certificates in PEM form") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {reason(error)}") from None
    return given


class MisspeltError(ValueError):
    """A value of which only the spelling is wrong."""

    def __init__(self, message: str, suggestion: str) -> None:
        super().__init__(message)
        self.suggestion = suggestion


Address = Annotated[TCPAddress | UnixAddress, PlainValidator(_address)]
OptionalAddress = Annotated[TCPAddress | UnixAddress | None, PlainValidator(_optional_address)]
PathPrefix = Annotated[str, AfterValidator(_path)]
HostName = Annotated[str, AfterValidator(_host)]
Url = Annotated[str, AfterValidator(_url)]
StateUrl = Annotated[str, AfterValidator(_state_url)]
IPNetwork = Annotated[Network, PlainValidator(_network)]
CAFile = Annotated[str, AfterValidator(_ca_file)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]

TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2
Token = Annotated[str, Field(pattern=f"^{TCHARS}$")]  # the name of a header field, or a method

_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
)  # a metric label, a log field, a part of a key in the state store


def check_name(given: str) -> str:
    """`given`, if listeners, upstreams, routes and policies can be called so. Raises ValueError."""
    if not _NAME.fullmatch(given):
        raise ValueError("must be 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first")
    return given


Name = Annotated[str, AfterValidator(check_name)]
