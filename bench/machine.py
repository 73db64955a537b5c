"""Cores, versions and other facts that belong beside a figure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("penstock", "aiohttp", "uvloop", "msgspec")


class Cores(NamedTuple):
    """Where the two sides of a measurement run: the load generator with its mock upstream, and the proxy under test."""

    load: int
    proxy: int


def pick_cores() -> Cores:
    """Two of the cores that this process may use; the same one twice where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[-1])


def stolen_s(core: int) -> float:
    """For how long since it booted, in seconds, a virtual machine's host ran others on this core while there was work for it:
    `steal` in proc_stat(5). It counts as CPU time of whatever ran then."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *jiffies = line.split()
        if name == f"cpu{core}":
            return int(jiffies[7]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def allow_open_files() -> int:
    """Let this process and those that it starts have as many open files as they may without being root; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def version_of(package: str) -> str | None:
    """The installed version of a Python distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def facts(cores: Cores) -> dict[str, object]:
    """What a reader has to know of the machine to judge a figure."""
    return {
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cores": cores._asdict(),
        "load_average_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_build": python_build(),
        **{package: version_of(package) for package in PACKAGES},
    }


def python_build() -> str:
    """How this interpreter was built, as far as it says. Without profile-guided optimisation, which the official images and
    the distributions build with, an event costs a fifth more."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    shared = "libpython" in Path("/proc/self/maps").read_text(encoding="utf-8")
    by_debian = "deb_system" in sysconfig.get_scheme_names()  # which optimises, but not by that option
    optimised = by_debian or "--enable-optimizations" in arguments
    return f"{'optimised' if optimised else 'not optimised'}, libpython {'shared' if shared else 'static'}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
