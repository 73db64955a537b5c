"""The benchmark: `python -m bench` (or `make bench`). What Penstock costs, as ratios to nginx; docs/bench.md says how.

    __main__.py    command line: measures, prints, writes; with --check, the exit status says whether something got worse
    rounds.py      measures batches of scenarios, round after round
    scenarios.py   what is measured: one row a scenario
    penstock.py    configurations of Penstock                    peers.py    those of nginx and the others
    servers.py     starts and stops the servers under test, pinned to one core
    loadgen.py     builds load/*.c and runs one measurement with it
    load/          mock model server and load generator in one process, pinned to the other core; main.c is its map
    figures.py     what is read from a measurement: ratios, medians, spread (pure)
    report.py      the table and the JSON file (pure)            targets.py  figures to reach (pure)
    reference.py   the committed ratios, and what got worse      plot.py     the plot of the README
    machine.py     cores, versions and other facts that belong beside a figure
    chain.py       a command of its own, `python -m bench.chain`: what a policy costs in the chain, without sockets
    redaction.py   another, `python -m bench.redaction`: what redaction costs

Every round measures every batch of scenarios together with the references, so that a drift of the machine meets all of
them; a ratio is taken within a batch of a round, and what is reported is the median of the rounds with the smallest and
the largest. Linux only: the figures come from /proc, and processes are pinned.

A peer is added as a `Peer` in peers.py and a `Scenario`, a figure as a `Figure`, a way to offer load as a `Mode`.
"""
