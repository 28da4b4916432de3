"""What an operator is told: facts, and what they mean. Read by health, metrics and the status page alike.

`Pulse` looks once a second, `Gauge` reads the parts into `Facts`, `findings` says whether all is well and what is not,
`advice` whether batching works and why not, `Exposition` gives the numbers to Prometheus. Nothing here decides
anything about jobs, and nothing of a job is told but its jid, type, queue and what upstream said of it.
"""
