"""The benchmark: `python -m bench` (or `make bench`). What Penstock adds to a stream, as ratios to nginx.

    __main__.py    command line: starts, measures in rounds, reports; the exit status says whether the limit holds
    scenarios.py   what is measured: one row a scenario, configuration files made from it
    servers.py     starts and stops the proxies under test, pinned to one core
    loadgen.py     builds loadgen.c and runs one measurement with it
    loadgen.c      mock model server and load generator in one process, pinned to the other core
    report.py      ratios, their spread, the table, the JSON file (pure)
    chain.py       a command of its own, `python -m bench.chain`: what a policy costs in the chain, without sockets
    machine.py     cores, versions and other facts that belong beside a figure

Every round measures every scenario once, so that a drift of the machine meets all of them; a ratio is taken within a
round, and what is reported is the median of the rounds with the smallest and the largest. Linux only: the figures come
from /proc, and processes are pinned.

A peer is added as a `Scenario` with a function in servers.py that starts it, a figure as a `Figure` in report.py.
"""
