"""Memory in parameters. All of it needs the extra ``holdfast[torch]`` and says so; nothing else here imports it."""
