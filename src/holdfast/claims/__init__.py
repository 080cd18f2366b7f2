"""One file a paper: its central claim, executable."""
