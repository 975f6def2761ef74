"""Several processes of one daemon: a supervisor binds the sockets, and workers serve on them."""
