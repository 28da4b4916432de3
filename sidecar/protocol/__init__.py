"""The Faktory Work Protocol without I/O: bytes in, bytes and values out.

Nothing here opens a socket, sleeps or reads a clock, so all of it runs the same when it is fed one byte at a
time.

lines      command lines out of a byte stream, bounded
replies    RESP replies out of a byte stream, each kept byte for byte
handshake  HI and HELLO from both sides, password hashes
jobs       which jobs Faktory is certain to accept, and how they are stamped
names      which JSON keys Go takes for one of its fields
"""
