"""What a scenario takes, from its configuration alone: memory, disk, operations and hours."""
