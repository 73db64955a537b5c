"""Penstock: a streaming policy proxy for model servers. The map: the way of a byte through these files, in order.

    client ── server.py ────▶ exchange.py: admission, in file order ────▶ upstream.py ────▶ model server
       ▲      connection.py                                                    │ bytes of one read
       │      downstream.py                                  handover.py ──▶ relay.py
       │                                                                       │ framing.py: frames
       │                                                                       │ dialects/:  frames to events
       │                                                                       ▼
       └────────── attachment.py: the connection's own chain ◀────────── chain.py: the exchange's chain
                   (restore, heartbeat), then the encoder                (guard … record)

The primitives, each a file:

    policy.py      THE CONTRACT: events in, a verdict out; what a policy author writes
    chain.py       who is called when: order, pauses, ends; pure
    framing.py     bytes to frames and back; `Event`        dialects/   what a frame means in a provider's words
    messages.py    request, head, local reply               errors.py   every exception, outcome and fault: one table
    relay.py       one exchange from admission to outcome; the only caller of the chains
                   (timer.py: when it must look; stall.py: whether the client reads; turns.py: the others)
    routing.py     which route a request takes              forwarding.py   what the proxy says of itself in headers

What stands around them:

    config.py (values.py, coherence.py, problems.py, secrets.py)   strict TOML to frozen objects, every error at once
    filewatch.py     files that may be edited while it runs
    registry.py      entry points to policy classes      assembly.py   configuration to what runs
    accesslog.py     one line per exchange               metrics.py    Prometheus
    receiving.py     what a request asks for             serving.py    the life of a process, to its exit status
    supervisor.py    several processes, kept alive       worker.py     one of them; the channel between the two
    merging.py       their metrics on one page           listening.py  addresses, alone or shared
    state.py (state_memory.py, state_redis.py, state_scripts.py)   what holds across processes: counters, leases
    identity.py      who a request counts for            ratelimit.py  what limits say in header fields
    tokens.py        counting tokens
    aiohttp_paths.py which of the two ways: handover.py and takeover.py, or portable_upstream.py and connection.py as it is
    fields.py        header field values                 decoding.py   content codings of what policies must read
    admin.py         health, readiness, metrics          demo.py       a small model server to try it with
    testing.py       helpers for policy authors          __main__.py   the command line

The border: server, serving, receiving, connection, takeover, downstream, upstream, handover, portable_upstream, relay,
timer, turns, listening, admin, filewatch, state_redis, supervisor, worker (and demo) do I/O and say so in their first
line. All else is data in, data out: no socket, clock, task or lock; time is a value.
"""
