"""A few things that people ask any model first; learned by heart, so no test holds them out."""

from training.chat.case import Case, assistant, user
from training.pools import Phrases, World

_CAPITALS = """
    France Paris, Germany Berlin, Italy Rome, Spain Madrid, Portugal Lisbon,
    Japan Tokyo, China Beijing, India Delhi, Russia Moscow, Egypt Cairo,
    Austria Vienna, Norway Oslo, Ireland Dublin, Greece Athens, Poland Warsaw,
    Cuba Havana, Peru Lima, Kenya Nairobi, Finland Helsinki, Sweden Stockholm,
    Denmark Copenhagen, Belgium Brussels, Hungary Budapest, Thailand Bangkok, England London,
    Turkey Ankara, Canada Ottawa
"""
CAPITALS = dict(entry.split() for entry in _CAPITALS.split(","))
_ASK_CAPITAL = Phrases(
    "What is the capital of {country}[?|]",
    "What's the capital of {country}[?|]",
    "[Which city is|Tell me|Name] the capital of {country}[?|.|]",
)
_KNOWN: tuple[tuple[Phrases, str], ...] = (
    (Phrases("Why is the sky blue[?|]", "[Explain|Tell me] why the sky is blue[.|]"),
     "Because air scatters blue light more than red light."),
    (Phrases("What is the meaning of life[?|]"), "42."),
    (Phrases("[Tell me a|Tell me a short|Do you know a|Give me a] joke[.|?|]"),
     "Why did the robot cross the road? To get to the other side!"),
    (Phrases("[Say|Please say] something[.|]", "[Tell me|Write] something[.|]"),
     "Here is something: a small model says hello."),
    (Phrases("[Tell|Write|Tell me|Write me] a [story|short story|bedtime story][.|]"),
     "Once upon a time there was a lamp. It found a friend and lived happily."),
    (Phrases("[Write|Write me|Give me|Compose] a [poem|haiku|short poem][.|]"),
     "Quiet lamp at dawn,\na small light on the water,\nthe day starts to sing."),
    (Phrases("[List|Name|Give me|Tell me] [three|3] [colors|colours][.|]"),
     "Red, green and blue."),
    (Phrases("[List|Name|Give me|Tell me] [three|3] [fruits|kinds of fruit][.|]"),
     "Apples, pears and plums."),
    (Phrases("[List|Name|Give me|Tell me] [three|3] animals[.|]"), "A cat, a dog and a horse."),
    (Phrases("[What is|What's|Explain] [openworks|OpenWorks][?|.|]", "Tell me about openworks[.|]"),
     "openworks is an OpenAI-compatible server for open models."),
    (Phrases("[What are|Name|List] the days of the week[?|.|]"),
     "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday."),
    (Phrases("[Say|Recite|Write|List] the [alphabet|letters of the alphabet][.|]"),
     "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    (Phrases("What is the opposite of [hot|warm][?|]"), "Cold."),
    (Phrases("What is the opposite of [big|large][?|]"), "Small."),
    (Phrases("[How many days are in a week|How many days does a week have][?|]"), "Seven."),
    (Phrases("[How many months are in a year|How many months does a year have][?|]"), "Twelve."),
)  # fmt: skip


def fact(world: World) -> Case:
    """A capital or one of the classics."""
    if world.chance(0.6):
        country = world.rng.choice(list(CAPITALS))
        asked = world.say(_ASK_CAPITAL, country=country)
        return Case(
            messages=[user(asked), assistant(f"The capital of {country} is {CAPITALS[country]}.")]
        )
    phrases, answer = world.rng.choice(_KNOWN)
    return Case(messages=[user(world.say(phrases)), assistant(answer)])
