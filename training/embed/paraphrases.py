"""Generated meanings, each with many ways to say or ask it."""

from dataclasses import dataclass

from training.pools import Phrases, Pool, World
from training.words import (
    ANIMALS,
    CITIES,
    COLOURS,
    COUNTRIES,
    DAYS,
    FIRST_NAMES,
    FOODS,
    HOBBIES,
    JOBS,
    MONTHS,
    NOUNS,
    THINGS,
    clock_time,
    sentence,
)

_WEATHER = Pool("rain|snow|fog|wind|sun|clouds|hail|thunderstorms|heat|frost|drizzle|ice", "|")
_DEVICES = Pool(
    "phone|laptop|printer|router|tablet|camera|speaker|keyboard|monitor|television|headphones|"
    "scanner|watch|microwave|dishwasher|fridge|washing machine|vacuum cleaner|toaster|heater",
    "|",
)
_PARTS = Pool("screen battery button cable fan lens lid plug sensor switch handle filter door pump")
_PLANS = Pool("basic plan|family plan|team plan|student plan|premium plan|trial|gold plan", "|")
_MEDICINES = Pool("headache fever cough toothache rash cold backache allergy insomnia sunburn")


@dataclass(frozen=True, slots=True)
class Meaning:
    """Statements and questions that belong together."""

    wordings: Phrases
    questions: Phrases


_MEANINGS: tuple[Meaning, ...] = (
    Meaning(
        Phrases(
            "[There will be|We expect|They announced] {weather} in {city} on {day}[.|]",
            "On {day}[,|] {city} [will have|gets|can expect] {weather}[.|]",
            "The forecast for {city} [says|shows|promises] {weather} on {day}[.|]",
            "{weather} [is coming|is expected|is likely] in {city} [this|on] {day}[.|]",
        ),
        Phrases(
            "[What is|How is|What's] the [weather|forecast] in {city} on {day}[?|]",
            "[Will there be|Do we get|Should I expect] {weather} in {city} on {day}[?|]",
            "[What weather|What kind of weather] [does|will] {city} have on {day}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "[My|The] order of {thing}s [has not arrived|did not come|is late|never showed up][.|]",
            "I am still waiting for the {thing}s [I ordered|that I bought][.|]",
            "[The delivery|The parcel|The package|The shipment] with the {thing}s is "
            "[late|delayed|missing][.|]",
        ),
        Phrases(
            "Where [is|are] [my|the] {thing} order[?|]",
            "When will [my|the] {thing}s [arrive|be delivered|get here|come][?|]",
            "[Can you track|Please check] the [delivery|shipment] of my {thing}s[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "I [want|would like|need] to [return|send back|give back] the {colour} {thing}[.|]",
            "[Please refund|I want my money back for] the {colour} {thing}[.|]",
            "[The|This] {colour} {thing} [goes back|must be returned|should be refunded][.|]",
        ),
        Phrases(
            "How [can|do] I [return|send back|get a refund for] the {colour} {thing}[?|]",
            "[Is it possible|Am I allowed] to return a {colour} {thing}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "To [make|cook|prepare] {food}[,|] you [need|start with|use] {food2}[.|]",
            "[The recipe for|A good dish of] {food} [contains|needs|is made with] {food2}[.|]",
            "{food2} is [the main|an] ingredient of {food}[.|]",
            "[Mix|Cook|Boil|Serve] the {food} [together |]with {food2}[.|]",
        ),
        Phrases(
            "How do I [make|cook|prepare] {food} with {food2}[?|]",
            "What is the recipe for {food} with {food2}[?|]",
            "[Which ingredient besides|What goes with] {food2} [makes|gives] {food}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "The {part} of my {device} [is broken|does not work|stopped working|is "
            "damaged|failed][.|]",
            "My {device} has a [broken|damaged|faulty|defective] {part}[.|]",
            "[Something is wrong|There is a problem] with the {part} of [my|the] {device}[.|]",
            "[Error|Warning]: {device} {part} [failure|not working|fault|malfunction][.|]",
        ),
        Phrases(
            "How [do|can] I [repair|fix|replace] the {part} of [my|a|the] {device}[?|]",
            "Why [is|does] the {device} {part} [broken|not work|fail][?|]",
            "[Who|Where can one] [repairs|fix|repair] a {device} {part}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "The [train|bus|flight|plane] from {city} to {city2} [leaves|departs|starts|goes] at "
            "{time}[.|]",
            "At {time} [there is|you can take] a [train|bus|flight] from {city} to {city2}[.|]",
            "[Departure|You depart] from {city} [is at|at] {time}, [arrival in|destination] "
            "{city2}[.|]",
            "[Travel|The trip|The journey] from {city} to {city2} [begins|starts] at {time}[.|]",
        ),
        Phrases(
            "When does the [train|bus|flight|plane] from {city} to {city2} [leave|depart|go][?|]",
            "How do I [get|travel|go] from {city} to {city2}[?|]",
            "[At what time|When] can I [leave|travel from] {city} [for|to] {city2}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "[I forgot|I lost|I cannot remember|I do not know] the password [of|for] my {noun} "
            "account[.|]",
            "My {noun} [login|password|account access] [no longer works|does not work|is lost][.|]",
            "[I am locked out of|I cannot log in to|I cannot sign in to|I have no access to] my "
            "{noun} account[.|]",
        ),
        Phrases(
            "How [can|do] I [reset|recover|change] [my|the] {noun} password[?|]",
            "How do I get back into my {noun} account[?|]",
            "[Where|How] can I log in to {noun} again[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "{name} [works|is employed|has a job|earns money] as a {job} in {city}[.|]",
            "{name} is a {job} [from|in|based in] {city}[.|]",
            "In {city}[,|] {name} [works as|is known as|is] a {job}[.|]",
            "The {job} [called|named] {name} [lives|works] in {city}[.|]",
        ),
        Phrases(
            "Who [works as|is] a {job} in {city}[?|]",
            "What does {name} do [in {city}|for a living in {city}][?|]",
            "[What is the job|What is the profession] of {name} [from|in] {city}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "{name} [likes|loves|enjoys|is fond of|adores] {hobby}[.|]",
            "[The hobby|The passion|The favourite pastime] of {name} is {hobby}[.|]",
            "{hobby} is what {name} [likes most|enjoys|does for fun|loves][.|]",
        ),
        Phrases(
            "What is {name}'s hobby[?|]",
            "[Who|Which person] [likes|enjoys|loves] {hobby}[?|]",
            "[Does|Is] {name} [like|enjoy|into|fond of] {hobby}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "The {noun} [opens|starts|begins] at {time} on {day}[.|]",
            "On {day}[,|] the {noun} [is open from|opens at|starts at] {time}[.|]",
            "{day}s: {noun} [opening|begins|open] at {time}[.|]",
        ),
        Phrases(
            "When does the {noun} [open|start|begin] on {day}[?|]",
            "What are the [opening hours|times] of the {noun} on {day}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "I [want|need|would like] to [cancel|end|stop|terminate] [my|the] {plan}[.|]",
            "[Please cancel|Please stop|End] my [subscription to the|membership of the|contract "
            "for the] {plan}[.|]",
            "[No more|I am leaving the|I do not want the] {plan} [please|for me|anymore][.|]",
        ),
        Phrases(
            "How [do|can] I [cancel|end|quit|leave] the {plan}[?|]",
            "[Where|How] can I unsubscribe from the {plan}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "The [price|cost] of the {plan} is {number} [dollars|euros] [a month|per month][.|]",
            "The {plan} costs {number} [dollars|euros][ each month| monthly|][.|]",
            "[You pay|Customers pay] {number} dollars for the {plan}[.|]",
        ),
        Phrases(
            "How much [is|does] the {plan} [cost|per month][?|]",
            "What is the [price|monthly fee] of the {plan}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "[The capital|The biggest city|The most famous city] of {country} [has|hosts] a "
            "[{animal} park|zoo with a {animal}][.|]",
            "In {country}[,|] people [keep|love|see] [the|a] {animal}[ as a pet|][.|]",
            "{animal}s [live|are common|can be seen|are found] in {country}[.|]",
        ),
        Phrases(
            "Where [do|can I see] {animal}s [live|in {country}][?|]",
            "Are there {animal}s in {country}[?|]",
            "Which animals live in {country}, {animal}s[?| perhaps?]",
        ),
    ),
    Meaning(
        Phrases(
            "The meeting about the {noun} [is|takes place|was moved] [to|on] {day} at {time}[.|]",
            "[We meet|Let us meet|The team meets] on {day} at {time} to [discuss|talk about] the "
            "{noun}[.|]",
            "[Calendar|Reminder]: {noun} meeting, {day} {time}[.|]",
        ),
        Phrases(
            "When is the [meeting|discussion|talk] about the {noun}[?|]",
            "[At what time|On which day] do we [discuss|talk about] the {noun}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "[Drink tea|Rest|Sleep|Stay at home] [if you have|when you have|against] [a "
            "|]{ill}[.|]",
            "[A doctor|A nurse] [helps|can help] [people with|against] {ill}[.|]",
            "[The best remedy|A cure|A treatment] for {ill} is [rest|tea|sleep|warm water][.|]",
        ),
        Phrases(
            "What [helps|can I do|is good] against {ill}[?|]",
            "How do I [treat|cure|get rid of] [a |my |]{ill}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "{name} was born in {month} {year}[.|]",
            "The [birthday|date of birth] of {name} is in {month} {year}[.|]",
            "In {month} {year}[,|] {name} was born[.|]",
            "{name} [celebrates|has] a birthday in {month}[, year| since] {year}[.|]",
        ),
        Phrases(
            "When [was {name} born|is the birthday of {name}][?|]",
            "What is the [birthday|birth date|birth month] of {name}[?|]",
            "Who was born in {month} {year}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "[We sell|You can buy|The shop has] {colour} {thing}s in {city}[.|]",
            "[In|Near] {city} [there is a shop|a store] [with|selling] {colour} {thing}s[.|]",
            "{colour} {thing}s are [sold|for sale|available] in {city}[.|]",
        ),
        Phrases(
            "Where can I [buy|get|find|purchase] a {colour} {thing} in {city}[?|]",
            "[Which shop|Who] [sells|has] {colour} {thing}s in {city}[?|]",
        ),
    ),
    Meaning(
        Phrases(
            "[I adopted|We have|There is] a {animal} [called|named] {name}[.|]",
            "[My|Our] {animal}'s name is {name}[.|]",
            "{name} is [my|our|the] {animal}[.|]",
            "[The|Our] {animal} [listens|answers] to the name {name}[.|]",
        ),
        Phrases(
            "What is the name of [the|your|our] {animal}[?|]",
            "What is [the|your] {animal} [called|named], {name}[?|]",
            "Who is {name}, [the|your] {animal}[?|]",
        ),
    ),
)
NUM_MEANINGS = len(_MEANINGS)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that mean the same, or a question and what answers it."""

    query: str
    passage: str
    meaning: int = -1
    values: tuple[tuple[str, str], ...] = ()
    """Everything that the passage is about."""
    asked: tuple[tuple[str, str], ...] = ()
    """What the query mentions of it."""

    def also_answered_by(self, other: "Pair") -> bool:
        """Whether the other passage fits this query just as well."""
        return self.meaning == other.meaning and set(self.asked) <= set(other.values)


def draw_pair(world: World, *, asks: bool | None = None, index: int | None = None) -> Pair:
    """One pair; both sides share their words for things and differ in wording.

    Args:
        asks: Whether the query is a question; by default half of the time.
        index: Which meaning; by default any.
    """
    index = world.rng.randrange(NUM_MEANINGS) if index is None else index
    meaning = _MEANINGS[index]
    asks = world.chance(0.5) if asks is None else asks
    slots = _slots(world)
    passage = world.phrase(meaning.wordings)
    query = world.phrase(meaning.questions if asks else meaning.wordings)
    return Pair(
        _typed(world, query.format(**slots)),
        _typed(world, passage.format(**slots)),
        index,
        tuple(slots.items()),
        tuple((key, value) for key, value in slots.items() if f"{{{key}}}" in query),
    )


def draw_other_pair(world: World) -> Pair:
    """A text and the same text damaged, or a question and a longer passage that answers it."""
    if world.chance(0.5):
        text = " ".join(sentence(world) for _ in range(world.rng.choice((1, 1, 2, 3))))
        words = text.split(" ")
        kept = [word for word in words if world.chance(0.8)] or words
        if world.chance(0.3):
            world.rng.shuffle(kept)
        return Pair(_typed(world, " ".join(kept)), _typed(world, text))
    pair = draw_pair(world)
    around = [draw_pair(world).passage for _ in range(world.rng.choice((1, 1, 2, 3)))]
    around.insert(world.rng.randint(0, len(around)), pair.passage)
    return Pair(pair.query, " ".join(around))


def _slots(world: World) -> dict[str, str]:
    cities, foods = world.pick_some(CITIES, 2), world.pick_some(FOODS, 2)
    return {
        "weather": world.pick(_WEATHER),
        "city": cities[0],
        "city2": cities[1],
        "day": world.pick(DAYS),
        "thing": world.pick(THINGS),
        "colour": world.pick(COLOURS),
        "food": foods[0],
        "food2": foods[1],
        "device": world.pick(_DEVICES),
        "part": world.pick(_PARTS),
        "time": clock_time(world),
        "noun": world.pick(NOUNS),
        "name": world.made_up().capitalize() if world.chance(0.3) else world.pick(FIRST_NAMES),
        "job": world.pick(JOBS),
        "hobby": world.pick(HOBBIES),
        "plan": world.pick(_PLANS),
        "number": str(world.number(2, 200)),
        "country": world.pick(COUNTRIES),
        "animal": world.pick(ANIMALS),
        "ill": world.pick(_MEDICINES),
        "month": world.pick(MONTHS),
        "year": str(world.number(1900, 2025)),
    }


def _typed(world: World, text: str) -> str:
    """A little typing noise: case, and one letter lost in a long word now and then."""
    if world.chance(0.15):
        text = text.lower()
    elif world.chance(0.05):
        text = text.upper()
    if world.chance(0.1):
        words = text.split(" ")
        place = world.rng.randrange(len(words))
        if len(words[place]) > 5:
            cut = world.rng.randrange(1, len(words[place]) - 1)
            words[place] = words[place][:cut] + words[place][cut + 1 :]
        text = " ".join(words)
    return text
