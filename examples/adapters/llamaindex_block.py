"""LlamaIndex's Memory with a block over a memory: python examples/adapters/llamaindex_block.py FOLDER"""

from __future__ import annotations

import sys

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.memory import Memory as Queue

from holdfast import Memory
from holdfast.adapters.llamaindex import HoldfastMemoryBlock

with Memory(sys.argv[1], user="ana", embedder=None) as memory:
    memory.add("My cat is called Miso")
    queue = Queue.from_defaults(
        session_id="talk-1",
        token_limit=4000,
        memory_blocks=[HoldfastMemoryBlock(memory=memory)],
        tokenizer_fn=str.split,
    )
    engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=queue)
    print(engine.chat("What is my cat called?"))  # the mock model says what it was asked
