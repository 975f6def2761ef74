"""The composition root, and the daemon as a process: signals, systemd, logs."""
