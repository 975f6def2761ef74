"""Static bearer tokens: a file with their hashes, and the checker that verifies them."""
