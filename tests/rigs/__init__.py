"""What the tests are made of, from the wire up.

wire          one TCP connection, byte for byte; both ends below are made of it
raw_client    sends the proxy any bytes; reads its replies as they are on the wire
raw_upstream  a model server that plays a script; keeps what it received
faults        scripts of every misbehaviour that has a name, with what has to come of it
penstock      the proxy as a process: configuration, addresses, access log, exit status
aiohttp_paths the two ways that the proxy goes, by the aiohttp it has, and where they differ
site          policies that only tests want, installed as far as entry points can tell
wires         every API as it stands on the wire, for fixed words
dictation     model servers that say what they are told to, in the words of each API, in any pieces
clients       the SDKs for Python, asked for the texts of a reply
sdk           proxies and ends that the tests of single SDKs share
llama         llama.cpp's own server, on the model that tiny_model makes
waiting       for conditions, never for durations
doubles       no wire at all: stand-ins for what surrounds one exchange, in simulated time (unit tests)
"""
