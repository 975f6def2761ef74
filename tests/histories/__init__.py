"""Histories: clients of several nodes on one database, faults, and a checker that knows only what was answered."""
