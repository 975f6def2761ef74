"""Settings: their sections and defaults, the layers that set them, and the rules that validate them."""
