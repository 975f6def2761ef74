"""
Benchmarks: this server beside its peers, on two cores of one machine.

- :mod:`benchmarks.run`: runs what the command line asks for.
- :mod:`benchmarks.options`: the command line.
- :mod:`benchmarks.plan`: what each benchmark measures, and of which peers.
- :mod:`benchmarks.peers`: the servers compared: how each is installed and started.
- :mod:`benchmarks.servers`: a peer as it runs: on one core, awaited, weighed, stopped, killed, started again.
- :mod:`benchmarks.databases`: PostgreSQL for the peers that need it.
- :mod:`benchmarks.generator`: builds and runs ``load.c``, which makes all the load.
- :mod:`benchmarks.speed`: appends, reads, tails and fan-out.
- :mod:`benchmarks.memory`: resident memory of idle tails, empty streams, and beside stalled readers.
- :mod:`benchmarks.durable`: durable appends.
- :mod:`benchmarks.nodes`: several nodes on one database.
- :mod:`benchmarks.replay`: whole reads of a long stream.
- :mod:`benchmarks.scale`: many streams under few descriptors, and what a kill leaves of them.
- :mod:`benchmarks.sweep`: appends beside the removal of what has expired.
- :mod:`benchmarks.holds`: how long one client holds up the others, by itself and not beside peers.
- :mod:`benchmarks.database`: the PostgreSQL storage by itself, with :mod:`benchmarks.rows`, :mod:`benchmarks.catch_up`,
  :mod:`benchmarks.busy` and :mod:`benchmarks.soak`.
- :mod:`benchmarks.figures`: what a measurement yields, and the tables.
"""
