"""Which providers need their words translated, and which take OpenAI's as they are.

A provider with an OpenAI-compatible endpoint of its own that covers chat with tools and streams is
asked there, with the model's name replaced: Google AI Studio (`v1beta/openai`), Vertex AI
(`endpoints/openapi`, chat alone), Cohere (`compatibility/v1`), Hugging Face's router, Azure, and
the rest. Anthropic has one too and says itself that it is for trying out: it ignores
`response_format` and `strict` and hides thinking. Bedrock's covers a part of its models, Converse
all that converse.
"""

from __future__ import annotations

from openworks.core.clock import Clock
from openworks.core.errors import UnsupportedParameterError
from openworks.core.ids import NewId, new_id
from openworks.gateway.compat.anthropic import AnthropicChat
from openworks.gateway.compat.base import Operation, Translator
from openworks.gateway.compat.bedrock import BedrockChat
from openworks.gateway.compat.bedrock_embeddings import BedrockEmbeddings
from openworks.gateway.compat.vertex_embeddings import VertexEmbeddings


def translator(
    provider_slug: str,
    operation: Operation,
    model: str,
    *,
    clock: Clock,
    make_id: NewId = new_id,
) -> Translator | None:
    """Return what translates for a provider; None when it takes OpenAI's shape as it is.

    Args:
        provider_slug: The gateway's name of the provider.
        operation: What is asked of it.
        model: The provider's own name of the model.
        clock: Answers say when they were made, which these providers' do not.
        make_id: Makes the ids of answers that come without.

    Raises:
        UnsupportedParameterError: The provider has nothing of the kind.
    """
    match provider_slug, operation:
        case "anthropic", "chat":
            return AnthropicChat(model=model, clock=clock)
        case "anthropic", _:
            raise _unserved(provider_slug, "it has no embeddings")
        case "aws-bedrock", "chat":
            return BedrockChat(model=model, clock=clock, new_id=make_id)
        case "aws-bedrock", _:
            return BedrockEmbeddings(model=model)
        case "google-vertex-ai", "embeddings":
            return VertexEmbeddings(model=model)
        case "replicate", _:
            raise _unserved(
                provider_slug,
                "each of its models has fields of its own; use its native endpoint by the gateway",
            )
        case _:
            return None


def _unserved(provider_slug: str, reason: str) -> UnsupportedParameterError:
    return UnsupportedParameterError(
        f"Unsupported value: 'model' of provider '{provider_slug}': {reason}.",
        code="unsupported_value",
        param="model",
    )
