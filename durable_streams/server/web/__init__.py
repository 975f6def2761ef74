"""The only code that touches HTTP: two fronts on one set of operations."""
