"""Storages that write every change to a log before they acknowledge it and show it to readers."""
