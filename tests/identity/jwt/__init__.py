"""Tests of JWT authentication."""
