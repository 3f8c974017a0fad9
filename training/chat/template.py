"""The chat template: ChatML turns, tools one per line, calls in the Hermes form."""

import json
from functools import cache
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from training.chat.case import Message, Tool

CHAT_TEMPLATE = """\
{%- macro signature(tool) %}
{{- tool.name }}(
{%- set parameters = tool.parameters if tool.parameters is defined else {} %}
{%- set required = parameters.required if parameters.required is defined else [] %}
{%- if parameters.properties is defined %}
{%- for name, schema in parameters.properties.items() %}
{{- name }}
{%- if name not in required %}?{% endif %}: {{ schema.type if schema.type is string else 'any' }}
{%- if schema.enum is defined %} [{{ schema.enum | join(', ') }}]{% endif %}
{%- if not loop.last %}, {% endif %}
{%- endfor %}
{%- endif %})
{%- if tool.description is defined and tool.description %} - {{ tool.description }}{% endif %}
{%- endmacro %}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content %}
{%- else %}
{%- set first = '' %}
{%- endif %}
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if first %}{{ first + '\\n\\n' }}{% endif %}
{{- 'Tools:\\n' }}
{%- for tool in tools %}
{{- signature(tool.function if tool.function is defined else tool) + '\\n' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif first %}
{{- '<|im_start|>system\\n' + first + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'system' and loop.first %}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.content %}{{ message.content }}{% endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- set function = call.function if call.function is defined else call %}
{%- if not loop.first or message.content %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
{%- if function.arguments is string %}{{ function.arguments }}
{%- else %}{{ function.arguments | tojson }}{% endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


@cache
def _compiled() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # As transformers does: plain JSON, no HTML escapes.
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE)


def render(
    messages: list[Message], tools: list[Tool] | None = None, *, add_generation_prompt: bool = False
) -> str:
    """The text that the tokenizer reads for a conversation."""
    variables: dict[str, Any] = {"messages": messages, "tools": tools or None}
    return _compiled().render(**variables, add_generation_prompt=add_generation_prompt)
