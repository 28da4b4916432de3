"""Everything that touches the real Faktory's socket.

*   `dial` makes one connection: TCP or TLS, socket options, handshake.
*   `pipe` is a connection on which commands are written without waiting and replies come back in their order.
*   `link` keeps the one pipe that carries all batches, and reconnects it for ever.
*   `side` is the pipe that all producers share for commands that are passed through.
*   `refusals` says what an error text of Faktory means for a job and for the link.
"""
