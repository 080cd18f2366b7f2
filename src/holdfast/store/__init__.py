"""Where cubes live: the journal, the tables, the blobs."""
