"""A chain with a history and a retriever over one memory: python examples/adapters/langchain_chat.py FOLDER"""

from __future__ import annotations

import sys

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from holdfast import Memory
from holdfast.adapters.langchain import HoldfastChatMessageHistory, HoldfastRetriever

model = GenericFakeChatModel(messages=iter([AIMessage("In Lisbon.")]))  # any chat model of LangChain
prompt = ChatPromptTemplate.from_messages(
    [("system", "What is known:\n{known}"), MessagesPlaceholder("history"), ("human", "{question}")]
)

with Memory(sys.argv[1], user="ana", embedder=None) as memory:
    memory.add("I moved to Lisbon in May")
    history, retriever = HoldfastChatMessageHistory(memory, "talk-1"), HoldfastRetriever(memory=memory)
    question = "Where did I move to?"
    known = "\n".join(document.page_content for document in retriever.invoke(question))  # fenced as data
    answer = (prompt | model).invoke({"known": known, "history": history.messages, "question": question})
    history.add_user_message(question)
    history.add_messages([answer])
    print(known)
    print([(message.type, message.content) for message in history.messages])
