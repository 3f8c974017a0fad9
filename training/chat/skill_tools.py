"""Skill d: choose the right tool, copy its arguments exactly, use what it returns."""

import json
from dataclasses import dataclass, field
from typing import Any

from training.chat.case import Case, Message, Tool, assistant, calling, system, tool_result, user
from training.chat.skill_persona import persona
from training.chat.skill_recall import repeat
from training.chat.skill_talk import ask_beyond, plain_system, talk
from training.chat.tool_domains import DOMAINS, SLOTS, Domain
from training.pools import Phrases, World
from training.words import ADJECTIVES, NOUNS, VERBS, anything, phrase, place, sentence

NO_TOOL = "I have no tool for that."

_EXPLICIT = Phrases(
    "[Call|Use|Run|Invoke|Please call|Please use] [the tool |the function |]{name} with "
    "{arguments}[.|]",
    "[Call|Use|Run] {name}[:| tool with| function with|,] {arguments}[.|]",
    "[Can you|Could you|I want you to|Now] [call|use|run] {name} with {arguments}[.|?|]",
)
_DESCRIBED = Phrases(
    "[Please |Can you |I want to |]{verb} the {noun} with {arguments}[.|]",
    "{verb} [a|the|my|this] {noun}[:|, with| using|, set] {arguments}[.|]",
    "[I need to|We must|Now|Help me to] {verb} [a|the|one] {noun} with {arguments}[.|]",
)
_NO_ARGUMENTS = Phrases(
    "[Call|Use|Run|Invoke|Please call] [the tool |the function |]{name}[.|]",
    "[Can you|Could you|Please] [call|use|run] {name}[.|?|]",
)
_RESULT_KEYS = [
    "temperature",
    "condition",
    "status",
    "price",
    "name",
    "city",
    "time",
    "total",
    "result",
    "value",
    "count",
    "date",
    "owner",
    "color",
    "size",
    "weight",
    "address",
    "phone",
    "email",
    "score",
    "state",
    "message",
    "answer",
    "distance",
    "population",
]


@dataclass(frozen=True, slots=True)
class Request:
    """A tool, a request that it answers, and the call that does so."""

    tool: Tool
    text: str
    arguments: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    """What the tool calls each slot of its domain."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return str(self.tool["function"]["name"])


def _tool(name: str, description: str, properties: dict[str, Any], required: list[str]) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def everyday(world: World, domain: Domain, *, like: Request | None = None) -> Request:
    """A realistic tool under one of its names, and a request for it.

    Args:
        like: An earlier request of the same domain whose tool is to be asked again.
    """
    template = world.casual(world.phrase(domain.requests))
    used = {key for key in domain.slots if f"{{{key}}}" in template}
    if like is not None and not used <= like.names.keys():
        return everyday(world, domain, like=like)
    tool, names = (like.tool, like.names) if like else _everyday_tool(world, domain, used)
    values = {key: SLOTS[key].draw(world) for key in domain.slots if key in used}
    arguments = {names[key]: value for key, value in values.items()}
    return Request(tool, template.format(**values), arguments, names)


def _everyday_tool(world: World, domain: Domain, used: set[str]) -> tuple[Tool, dict[str, str]]:
    """The tool's definition and what it calls each slot."""
    properties: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key in domain.slots:
        slot = SLOTS[key]
        if key not in used and world.chance(0.4):
            continue
        options = slot.names.split("|")
        name = options[0] if world.chance(0.5) else world.rng.choice(options)
        name = key if name in properties else name
        names[key] = name
        is_count = slot.type == "integer"
        properties[name] = {"type": "number" if is_count and world.chance(0.3) else slot.type}
        if slot.options and world.chance(0.85):
            properties[name]["enum"] = list(slot.options)
    name = domain.names[0] if world.chance(0.3) else world.rng.choice(domain.names)
    description = world.rng.choice(domain.descriptions) if world.chance(0.93) else ""
    required = [names[key] for key in domain.required]
    return _tool(name, description, properties, required), names


def _parameter(world: World) -> tuple[str, dict[str, Any], Any]:
    rng = world.rng
    roll = rng.random()
    name = world.made_up() if world.chance(0.4) else world.pick(NOUNS)
    if world.chance(0.15):
        name = f"{world.pick(ADJECTIVES)}_{name}"
    if roll < 0.5:
        value = anything(world) if world.chance(0.6) else phrase(world, 1, 3)
        return name, {"type": "string"}, value.replace('"', "'").rstrip(".?!,")
    if roll < 0.75:
        return name, {"type": "integer"}, world.number(0, 9999)
    if roll < 0.8:
        return name, {"type": "boolean"}, rng.random() < 0.5
    options = [world.made_up() for _ in range(rng.randint(2, 4))]
    if world.chance(0.5):
        options = world.pick_some(ADJECTIVES, len(options))
    return name, {"type": "string", "enum": options}, rng.choice(options)


def invented(world: World) -> Request:
    """A tool that does not exist: random names, a random description, random parameters."""
    rng = world.rng
    verb = world.made_up() if world.chance(0.3) else world.pick(VERBS)
    noun = world.made_up() if world.chance(0.4) else world.pick(NOUNS)
    name = f"{verb}_{noun}" if world.chance(0.5) else world.made_up()
    if world.chance(0.1):
        name = f"{world.made_up()}{noun.capitalize()}"
    description = rng.choice(
        (f"{verb.capitalize()} the {noun}.", f"{verb} a {noun}", f"{verb}s {noun}s")
    )
    parameters = {
        p[0]: p for p in (_parameter(world) for _ in range(rng.choice((0, 1, 1, 2, 2, 3))))
    }
    given = [p for p in parameters.values() if world.chance(0.85)] or list(parameters.values())
    if world.chance(0.2):
        rng.shuffle(given)
    link = rng.choice((" ", " ", " = ", "=", ": ", " set to "))
    wordings = [
        f"{p[0].replace('_', ' ') if world.chance(0.3) else p[0]}{link}"
        f"{str(p[2]).lower() if isinstance(p[2], bool) else p[2]}"
        for p in given
    ]
    spoken = (
        (", ".join(wordings[:-1]) + " and " + wordings[-1]) if len(given) > 1 else "".join(wordings)
    )
    if not given:
        text = world.say(_NO_ARGUMENTS, name=name)
    elif world.chance(0.5):
        text = world.say(_EXPLICIT, name=name, arguments=spoken)
    else:
        text = world.say(_DESCRIBED, verb=verb, noun=noun, arguments=spoken)
    order = {name: index for index, name in enumerate(parameters)}
    given.sort(key=lambda p: order[p[0]])
    properties = {p[0]: p[1] for p in parameters.values()}
    required = [p[0] for p in given]
    return Request(
        _tool(name, description, properties, required), text, {p[0]: p[2] for p in given}
    )


def _requests(world: World, count: int, invented_share: float) -> list[Request]:
    """Requests for `count` different tools."""
    domains = world.rng.sample(DOMAINS, count)
    requests = {}
    for domain in domains:
        request = invented(world) if world.chance(invented_share) else everyday(world, domain)
        requests[request.name] = request
    return list(requests.values())


def result_of(world: World) -> tuple[str, str, tuple[str, ...]]:
    """What a tool returns: its text, how to say it, and what must not get lost."""
    if world.chance(0.35):
        text = sentence(world) if world.chance(0.5) else anything(world)
        return text, text.rstrip("."), (text.rstrip(".?!"),)
    values: dict[str, Any] = {}
    for key in world.rng.sample(_RESULT_KEYS, world.rng.choice((1, 2, 2, 3))):
        number = world.number(0, 9999) if world.chance(0.5) else world.number(0, 40)
        word = place(world) if world.chance(0.3) else phrase(world, 1, 2)
        values[key] = number if world.chance(0.5) else word
    spoken = ", ".join(f"{key} {value}" for key, value in values.items())
    return json.dumps(values, ensure_ascii=False), spoken, tuple(str(v) for v in values.values())


def _plain_turns(world: World) -> Case:
    roll = world.rng.random()
    if roll < 0.5:
        return talk(world)
    return repeat(world) if roll < 0.75 else ask_beyond(world)


def call_tool(world: World, *, max_tools: int = 4, invented_share: float = 0.5) -> Case:
    """One or more requests over up to four tools; the last message is a call."""
    count = world.rng.randint(1, max_tools)
    requests = _requests(world, count, invented_share)
    tools = [request.tool for request in requests]
    messages: list[Message] = []
    if world.chance(0.2):
        messages.append(system(plain_system(world)))
    turns = 1 if world.new_values else world.rng.choice((1, 2, 3, 4))
    chosen = world.rng.sample(requests, min(turns, len(requests)))
    for index, request in enumerate(chosen):
        if index:
            text, spoken, _ = result_of(world)
            messages += [tool_result(text), assistant(f"The result is: {spoken}.")]
        messages += [user(request.text), calling((request.name, request.arguments))]
    world.rng.shuffle(tools)
    return Case(messages=messages, tools=tools)


def call_two(world: World) -> Case:
    """Two requests in one message: two calls in one answer."""
    requests = _requests(world, world.rng.randint(2, 3), 0.25)
    if len(requests) < 2 or world.chance(0.5):
        domain = world.rng.choice(DOMAINS)
        first = everyday(world, domain)
        second = everyday(world, domain, like=first)
        tools = list({r.name: r.tool for r in [first, *requests[:2]]}.values())
    else:
        first, second = world.rng.sample(requests, 2)
        tools = [request.tool for request in requests]
    joined = world.rng.choice(("{} {}", "{} Also: {}", "{} And {}", "{}\n{}"))
    world.rng.shuffle(tools)
    messages = [
        user(joined.format(first.text, second.text)),
        calling((first.name, first.arguments), (second.name, second.arguments)),
    ]
    return Case(messages=messages, tools=tools)


def use_result(world: World) -> Case:
    """After the tool's result, say what it was."""
    requests = _requests(world, world.rng.randint(1, 3), 0.4)
    request = world.rng.choice(requests)
    messages = [user(request.text), calling((request.name, request.arguments))]
    text, spoken, needles = result_of(world)
    messages.append(tool_result(text))
    if world.chance(0.15) and len(requests) > 1:
        other = world.rng.choice([r for r in requests if r is not request])
        messages[0] = user(f"{request.text} {other.text}")
        messages[1] = calling((request.name, request.arguments), (other.name, other.arguments))
        more, also, extra = result_of(world)
        messages.append(tool_result(more))
        spoken, needles = f"{spoken}; {also}", needles + extra
    messages.append(assistant(f"The result is: {spoken}."))
    tools = [r.tool for r in requests]
    return Case(messages=messages, tools=tools, match="contains", needles=needles)


def no_call(world: World) -> Case:
    """Tools are there but none is wanted, or none fits."""
    requests = _requests(world, world.rng.randint(2, 4), 0.4)
    if world.chance(0.4):
        wanted, *rest = requests
        tools = [r.tool for r in rest] if world.chance(0.9) else []
        if any(_words_of(wanted) & _words_of(other) for other in rest):
            return no_call(world)
        return Case(messages=[user(wanted.text), assistant(NO_TOOL)], tools=tools)
    case = persona(world) if world.chance(0.15) else _plain_turns(world)
    tools = [r.tool for r in requests]
    return Case(messages=case.messages, tools=tools, match=case.match, needles=case.needles)


def _words_of(request: Request) -> set[str]:
    """What a tool is about: two tools that share a word may both fit."""
    function = request.tool["function"]
    words = f"{function['name']} {function['description']}".replace("_", " ").lower().split()
    common = [
        "get",
        "the",
        "a",
        "an",
        "of",
        "find",
        "in",
        "or",
        "to",
        "for",
        "look",
        "up",
        "show",
        "two",
        "create",
        "set",
        "number",
    ]
    return {word.strip(".") for word in words if word not in common}
