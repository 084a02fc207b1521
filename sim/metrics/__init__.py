"""What a run leaves behind: records while it runs, statistics afterwards."""
