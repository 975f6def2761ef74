"""Storage providers, one a module or folder. Nothing here knows HTTP, or who waits."""
