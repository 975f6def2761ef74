"""``python -m durable_streams.server`` is the same as ``durable-streams-server``."""

from .cli import main

if __name__ == "__main__":
    main()
