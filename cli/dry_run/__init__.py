"""``--dry-run``: what a command would do, in sizes, steps, devices and memory."""
