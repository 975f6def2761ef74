"""Archives: a documented file format that keeps everything of streams; ``docs/archive-format.rst`` describes it."""
