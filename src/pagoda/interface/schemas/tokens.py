"""``POST /tokenize`` and ``/detokenize``: the form that vLLM made usual."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pagoda.interface.schemas.chat import ChatMessage
from pagoda.interface.schemas.completion import TokenId
from pagoda.interface.schemas.shared import ModelName, Shape, Strict


class TokenizeRequest(Strict):
    """Text, or a conversation under the model's chat template."""

    model: ModelName | None = None
    prompt: str | None = None
    text: str | None = Field(None, description="Another name of prompt.")
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=10_000)
    add_special_tokens: bool | None = Field(
        None, description="Text only: with the tokens that the model puts around a prompt; absent: true."
    )
    continue_final_message: bool = Field(False, description="Messages only: the last one is to be continued.")
    return_token_strs: bool | None = Field(None, description="Give the text of each token too.")

    @model_validator(mode="after")
    def _check(self) -> TokenizeRequest:
        if sum(value is not None for value in (self.prompt, self.text, self.messages)) != 1:
            raise ValueError("give one of prompt, text and messages")
        if self.messages is not None and self.add_special_tokens:
            raise ValueError("add_special_tokens belongs to text; the chat template has its own")
        if self.continue_final_message and (self.messages is None or self.messages[-1].role != "assistant"):
            raise ValueError("continue_final_message needs the last message to be the assistant's")
        return self


class TokenizeAnswer(Shape):
    """The tokens, and how many the model's context holds."""

    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeRequest(Strict):
    """Token ids."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1_000_000)]


class DetokenizeAnswer(Shape):
    """Their text."""

    prompt: str
