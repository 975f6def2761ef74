"""HTTP: fronts for HTTP/1.1, HTTP/2 and twisted.web on one set of operations."""
