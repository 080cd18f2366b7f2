"""A program written for mem0, with one import changed: python examples/adapters/mem0_switch.py FOLDER"""

from __future__ import annotations

import sys

from holdfast.adapters.mem0 import Memory  # from mem0 import Memory

memory = Memory.from_config({"holdfast": {"path": sys.argv[1]}})
added = memory.add([{"role": "user", "content": "I moved to Lisbon in May"}], user_id="ana", metadata={"from": "chat"})
print([result["event"] for result in added["results"]])
print(memory.search("where did I move to?", filters={"user_id": "ana", "from": "chat"})["results"][0]["memory"])
memory.update(added["results"][0]["id"], "I moved to Lisbon in June")
print([line["event"] for line in memory.history(added["results"][0]["id"])])
memory.close()
