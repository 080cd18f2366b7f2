"""One file an engine, each fitting ``base.Engine``. None imports another, and none imports holdfast but its own."""
