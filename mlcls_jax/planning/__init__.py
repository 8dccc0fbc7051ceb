"""What a run will need, before it is started: memory, traffic and time on a chip."""
