"""Export, import, backup and restore of streams."""
