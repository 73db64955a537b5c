"""The command line, and nothing else: `penstock run`, `check`, `policies`, `hash-key`, `demo`.

Exit status: 0 done; 1 the machine would not (an address in use ...); 2 a mistake of the operator's, each told in a line
on stderr; 130 interrupted; 141 whoever read the output (`| head`) has left.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence

from .catalogue import catalogue
from .config import Config, load
from .errors import ConfigError
from .identity import digest
from .registry import DISTRIBUTION, Registry, intruders
from .values import check_name

_FAILED, _MISTAKEN, _INTERRUPTED, _UNREAD = 1, 2, 130, 141  # the last two: 128 and the signal, as shells count
_KEY_BYTES = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `argv` (default: the process's) and return its exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    found = intruders()
    if found:
        _complain("\n".join(found))
        return _MISTAKEN
    try:
        status = command(arguments)
        sys.stdout.flush()  # or the interpreter does, at its end, and complains
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what could not be flushed
        return _UNREAD
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        _complain(f"{count} problem{'' if count == 1 else 's'} in {error.file}; nothing was started")
        return _MISTAKEN
    except OSError as error:
        _complain(str(error))
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    # The other commands need no server, and start in half the time without.
    if config.server.workers > 1:
        from .supervisor import run
    else:
        from .serving import run
    return run(config)


def _check(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    print(f"OK: {arguments.config}")
    for line in _outline(config):
        print(f"    {line}")
    return 0


def _policies(arguments: argparse.Namespace) -> int:
    for line in catalogue(Registry.scan()):
        print(line)
    print("Every [[policy]] table also takes `use`, `name`, `routes` and `on_error`; see config.example.toml.")
    return 0


def _hash_key(arguments: argparse.Namespace) -> int:
    key = f"{DISTRIBUTION}-{secrets.token_urlsafe(_KEY_BYTES)}"
    fields = {"id": arguments.id, "sha256": digest(key).hex(), "tenant": arguments.tenant}
    print("The key, for the client. It is kept nowhere:", file=sys.stderr)
    print(key)
    print('Its entry, for `keys` of policy "auth" or of its `keys_file`:', file=sys.stderr)
    print("{ " + ", ".join(f'{name} = "{value}"' for name, value in fields.items() if value) + " },")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import main as serve

    return serve(arguments.listen)


def _outline(config: Config) -> Iterator[str]:
    """A line for each address and each route, with its chain."""
    for name, listener in config.listeners.items():
        yield f"listener {name}: {listener.address}"
    yield f"admin: {config.admin.address or 'off'}"
    for name, route in config.routes.items():
        hosts = ", ".join(route.hosts) or "any host"
        chain = ", ".join(entry.name for entry in config.chain(name)) or "no policy"
        yield f"route {name}: {route.path} on {hosts} -> {config.upstreams[route.upstream].url} ({chain})"


def _complain(message: str) -> None:
    print(f"{DISTRIBUTION}: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=DISTRIBUTION, description="Streaming policy proxy for model servers.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    for name, command, help in (
        ("run", _run, "run the proxy"),
        ("check", _check, "check a configuration: exit status 0, or 2 with every problem in it"),
    ):
        add(name, command, help).add_argument("--config", required=True, metavar="FILE", help="TOML file")
    add("policies", _policies, "list the policies that are installed, with their keys")
    hash_key = add("hash-key", _hash_key, "make an API key for a client of policy auth, and its configuration entry")
    hash_key.add_argument("id", type=_name, metavar="ID", help="what the key is called in logs and limits")
    hash_key.add_argument("--tenant", type=_name, metavar="NAME", help="what counts together with other keys")
    add("demo", _demo, "serve a small demo model").add_argument(
        "--listen", default="127.0.0.1:8000", metavar="ADDRESS", help="host:port to serve on (default: %(default)s)"
    )
    return parser


def _name(given: str) -> str:
    try:
        return check_name(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
