"""Learning to use memory. What trains a network needs the extra ``holdfast[torch]`` and says so; nothing else here imports it."""
