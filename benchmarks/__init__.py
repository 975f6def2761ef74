"""
Benchmarks: this server beside its peers, on two cores of one machine.

- :mod:`benchmarks.run`: the command line.
- :mod:`benchmarks.peers`: the servers compared: installed, started on one core, awaited, stopped, weighed.
- :mod:`benchmarks.generator`: builds and runs ``load.c``, which makes all the load.
- :mod:`benchmarks.speed`: appends, reads, tails and fan-out.
- :mod:`benchmarks.memory`: resident memory of idle tails, empty streams, and beside stalled readers.
- :mod:`benchmarks.figures`: what a measurement yields, and the tables.
"""
