"""Tests of static tokens."""
