"""Where connections come from: string endpoints, listeners, the shared epoll port, TLS."""
