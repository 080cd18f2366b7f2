"""Anthropic's memory tool with versions: python examples/adapters/anthropic_memory_tool.py FOLDER"""

from __future__ import annotations

import sys

from holdfast import Memory
from holdfast.adapters.anthropic import HoldfastMemoryTool

with Memory(sys.argv[1], user="ana", embedder=None) as memory:
    tool = HoldfastMemoryTool(memory)
    # client.beta.messages.tool_runner(tools=[tool], ...) makes such calls for a model.
    tool.call({"command": "create", "path": "/memories/ana.md", "file_text": "Ana lives in Porto\n"})
    tool.call({"command": "str_replace", "path": "/memories/ana.md", "old_str": "Porto", "new_str": "Lisbon"})
    print(tool.call({"command": "view", "path": "/memories/ana.md"}))
    (file,) = memory.select()
    memory.undo(memory.history(file.id)[-1].event.seq)  # the edit is taken back
    print(tool.call({"command": "view", "path": "/memories/ana.md"}))
