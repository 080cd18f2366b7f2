"""A graph whose nodes share a memory: python examples/adapters/langgraph_store.py FOLDER"""

from __future__ import annotations

import sys
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from holdfast import Memory
from holdfast.adapters.langgraph import HoldfastStore


class State(TypedDict):
    """What goes through the graph."""

    said: str
    known: list[str]


def recall(state: State, *, store: BaseStore) -> dict[str, list[str]]:
    """What earlier runs left."""
    return {"known": [item.value["text"] for item in store.search(("talk",), query=state["said"], limit=3)]}


def remember(state: State, *, store: BaseStore) -> None:
    """Leave what was said for later runs."""
    store.put(("talk",), state["said"][:40], {"text": state["said"]})


graph = StateGraph(State)
graph.add_node("recall", recall)
graph.add_node("remember", remember)
graph.add_edge(START, "recall")
graph.add_edge("recall", "remember")
graph.add_edge("remember", END)

with Memory(sys.argv[1], user="ana", embedder=None) as memory:
    app = graph.compile(store=HoldfastStore(memory))
    app.invoke({"said": "I moved to Lisbon in May", "known": []})
    print(app.invoke({"said": "Where did I move?", "known": []})["known"])
    (item,) = [cube for cube in memory.select() if "Lisbon" in cube.text]
    print(item.id, [str(change.event.action) for change in memory.history(item.id)])
