"""Rounds of the benchmark as if they had been measured."""

from __future__ import annotations

from bench.figures import Round, Run
from bench.loadgen import Measurement, Mode, Percentiles


def measurement(
    cpu_us: float, latency_us: float, *, own_busy: float = 0.2, waited: float = 0.0, stolen: float = 0.0
) -> Measurement:
    """1,000 events at `cpu_us` each, in a second; p99 and TTFT are twice and three times the latency."""
    return Measurement(
        events=1000,
        bytes=240_000,
        seconds=1.0,
        cpu_ns=int(cpu_us * 1e6),
        waited=waited,
        own_busy=own_busy,
        own_waited=0.0,
        stolen=stolen,
        latency_us=Percentiles(latency_us, latency_us, 2 * latency_us, 2 * latency_us),
        ttft_us=Percentiles(3 * latency_us, 3 * latency_us, 3 * latency_us, 3 * latency_us),
        stream_kib=cpu_us,
        turn_us=latency_us,
    )


def round_of(**scenarios: tuple[float, float]) -> Round:
    """(CPU, latency) of each scenario, the same in every mode; as many milliseconds to start as microseconds of CPU."""
    return {
        name.replace("_", "-"): Run(cpu_us, {mode: measurement(cpu_us, latency_us) for mode in Mode})
        for name, (cpu_us, latency_us) in scenarios.items()
    }


ROUNDS = [
    round_of(direct=(0, 20), nginx=(40, 120), pass_through=(60, 170)),
    round_of(direct=(0, 30), nginx=(20, 80), pass_through=(38, 130)),
    round_of(direct=(0, 20), nginx=(30, 100), pass_through=(51, 180)),
]
"""In which pass-through takes 1.5, 1.9 and 1.7 times nginx's CPU time."""
