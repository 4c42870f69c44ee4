"""HTTP/1.1 (RFC 9112) on asyncio protocols: a server, and a client of the same make. llhttp parses, both ways.

Nothing here knows about tokens. A `Handler` is called with an `Exchange` as soon as a request's head is there, and may
answer on the spot: no task, no coroutine and no timer belongs to a request that is answered from memory.

`framing` cuts what comes in so that the parser never sees the head of one request before the one in front of it has
been answered, and refuses what the parser is lenient about; `connection`, `reader` and `exchange` are the server's
side, `server` owns the sockets; `client` and `pool` are the other side; `heads` and `answers` are the short way for
what comes alone and whole, both ways; `ticker` is the one clock and the one timer of them all.
"""
