"""Pages of the documentation, followed from their first command to their last; they install from package indexes."""
