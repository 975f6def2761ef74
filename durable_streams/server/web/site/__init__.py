"""Front for any twisted.web Site: the streams as a resource, and the Klein application of all that is no stream."""
