"""A session of the OpenAI Agents SDK over a memory: python examples/adapters/openai_agents_session.py FOLDER"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, ModelResponse, RunConfig, Runner, Usage
from agents.models.interface import Model
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from holdfast import Memory
from holdfast.adapters.openai_agents import HoldfastSession


class Counting(Model):
    """Says how much it was given; in its place goes any model of the SDK."""

    async def get_response(
        self,
        system_instructions: Any,  # noqa: ARG002
        input: Any,
        *args: Any,  # noqa: ARG002
        **options: Any,  # noqa: ARG002
    ) -> ModelResponse:
        """One message."""
        text = ResponseOutputText(text=f"I was given {len(input)} items", type="output_text", annotations=[])
        message = ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """Not needed here."""
        raise NotImplementedError


async def main(memory: Memory) -> None:
    """Two runs, of which the second goes on with the first."""
    agent, quiet = Agent(name="helper", model=Counting()), RunConfig(tracing_disabled=True)
    for said in ("I moved to Lisbon in May", "Where did I move to?"):
        run = await Runner.run(agent, said, session=HoldfastSession(memory, "talk-1"), run_config=quiet)
        print(run.final_output)


with Memory(sys.argv[1], user="ana", embedder=None) as memory:
    asyncio.run(main(memory))
    print(memory.search("Where did I move to?")[0].why)
