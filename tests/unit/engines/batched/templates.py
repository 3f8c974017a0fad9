"""Chat templates in the shapes of well-known families, and a conversation for them."""

from __future__ import annotations

from openworks.core.json import JsonObject

CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\\n\\n' }}{%- endif %}
    {{- 'Functions:' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(answers=0) %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' + message.role }}
    {%- if message.role == 'assistant' %}{%- set ns.answers = ns.answers + 1 %}{%- endif %}
    {%- if message.reasoning_content %}
        {{- '\\n<think>\\n' + message.reasoning_content + '\\n</think>' }}
    {%- endif %}
    {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson }}
        {{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

LLAMA = """\
{{- bos_token }}
{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '1 Jan 2025' %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nDay: ' + day + '\\n' + system + '<|eot_id|>' }}
{%- if tools is not none %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
    {{- messages[0]['content'] + '<|eot_id|>' }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception('One call at a time!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name }}
        {{- '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}
    {%- elif message.role in ['tool', 'ipython'] %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{{- bos_token }}
{%- set turns = namespace(last='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- raise_exception('System role not supported') }}
    {%- elif message['role'] == 'user' %}
        {%- if turns.last == 'user' %}{{- raise_exception('Roles must alternate.') }}{%- endif %}
        {%- if loop.last and tools %}
            {{- '[AVAILABLE_TOOLS] ' + (tools | map(attribute='function') | list | tojson) }}
            {{- '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST] ' + message['content'] + '[/INST]' }}
    {%- elif message['tool_calls'] is defined %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message['tool_calls'] %}
            {%- if call.id | length != 9 %}
                {{- raise_exception('Ids have nine letters') }}
            {%- endif %}
            {%- set shown = call.function | tojson %}
            {{- shown[:-1] + ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message['role'] == 'tool' %}
        {{- '[TOOL_RESULTS] ' + ({'content': message.content} | tojson) + '[/TOOL_RESULTS]' }}
    {%- else %}
        {% generation %}{{- ' ' + message['content'] + eos_token }}{% endgeneration %}
    {%- endif %}
    {%- set turns.last = message['role'] %}
{%- endfor %}
"""

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks <b>up</b> a word; Wörter, too.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}

CALL: JsonObject = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"word": "naïve & <so>", "n": [1, null]}'},
}

TURNS: list[JsonObject] = [
    {"role": "user", "content": "What is naïve?\n"},
    {"role": "assistant", "content": "A word."},
    {"role": "user", "content": "Look it up."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"is": "innocent"}'},
    {"role": "assistant", "content": "Innocent.", "tool_calls": None, "refusal": None},
    {"role": "user", "content": "Thanks"},
]

SYSTEM: JsonObject = {"role": "system", "content": "Be brief. "}
