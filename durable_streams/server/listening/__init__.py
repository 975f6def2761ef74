"""Ports and listeners: string endpoints, the shared epoll port, TLS."""
