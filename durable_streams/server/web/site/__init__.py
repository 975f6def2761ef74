"""The streams as a resource for any twisted.web Site, and the pages, which Klein routes on all fronts."""
