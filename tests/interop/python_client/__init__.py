"""Scenarios for the official Python client, in both of its APIs."""
