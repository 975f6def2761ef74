"""Storage providers, one a module or folder. Nothing here depends on HTTP or on waiting readers."""
