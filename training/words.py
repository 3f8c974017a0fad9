"""The word lists that every generator draws from; see `pools.Pool` for their split."""

from collections.abc import Callable

from training.pools import Pool, World

FIRST_NAMES = Pool(
    """Alice Bob Carol David Emma Frank Grace Henry Iris Jack Karen Leo Maria Noah Olivia Paul Quinn
    Rosa Sam Tara Umar Vera Walter Xenia Yusuf Zoe Anna Ben Clara Daniel Elena Felix Gina Hugo
    Ines Jonas Kira Lars Mina Nina Oscar Petra Ravi Sofia Tom Ursula Viktor Wendy Yara Zack Aisha
    Bruno Chloe Diego Eva Fatima George Hana Ivan Julia Kofi Lena Marco Nadia Omar Priya Rami Sara
    Theo Lucy Max Mia Ella Liam Lily Adam Amy Andrea Arthur Ava Carlos Cora Dina Dora Edgar Edith
    Elias Erik Ethan Flora Gabriel Greta Hassan Helen Ida Jade Jane John Kai Kate Kenji Laura
    Layla Lisa Luca Luis Mark Martha Mei Michael Milo Nora Oliver Otto Pablo Pedro Peter Rachel
    Rita Robert Ruth Sana Simon Stella Sven Tina Tony Victor Yuki Ali Ahmed James Mary Chen Wei
    Lin Jin Akira Boris Olga Dmitri Svetlana Pierre Marie Jean Hans Klaus Ingrid Joao Ana Deepa
    Arjun Anil"""
)
CITIES = Pool(
    """Paris|London|Rome|Berlin|Madrid|Tokyo|Lisbon|Vienna|Oslo|Dublin|Cairo|Lagos|
    Nairobi|Lima|Quito|Bogota|Boston|Chicago|Denver|Seattle|Austin|Dallas|Miami|
    Toronto|Montreal|Vancouver|Sydney|Melbourne|Perth|Auckland|Delhi|Mumbai|Chennai|
    Dhaka|Karachi|Tehran|Baghdad|Ankara|Istanbul|Athens|Sofia|Belgrade|Zagreb|Prague|
    Warsaw|Budapest|Kyiv|Moscow|Helsinki|Stockholm|Copenhagen|Amsterdam|Brussels|
    Geneva|Zurich|Milan|Venice|Naples|Lyon|Nice|Porto|Seville|Barcelona|Valencia|
    Munich|Hamburg|Cologne|Leipzig|Dresden|Beijing|Shanghai|Seoul|Busan|Osaka|Kyoto|
    Hanoi|Bangkok|Jakarta|Manila|Singapore|Accra|Dakar|Tunis|Rabat|Havana|Santiago|
    Caracas|Brasilia|Recife|Houston|Phoenix|Portland|Atlanta|Detroit|New York|San
    Francisco|Los Angeles|Mexico City|Cape Town|Hong Kong|Rio de Janeiro|Buenos Aires|
    Kuala Lumpur|Addis Ababa|New Delhi|Las Vegas|San Diego|Tel Aviv|Sao Paulo|Saint
    Petersburg""",
    "|",
)
COUNTRIES = Pool(
    """France Spain Italy Germany Japan China India Brazil Canada Mexico Egypt Kenya Ghana Nigeria
    Norway Sweden Finland Denmark Poland Greece Turkey Iran Iraq Peru Chile Argentina Australia
    Austria Belgium Portugal Ireland Iceland Hungary Romania Ukraine Russia Korea Vietnam Thailand
    Morocco Tunisia Cuba Jamaica Nepal Pakistan"""
)
COLOURS = Pool(
    """red blue green yellow teal purple orange pink brown black white grey silver gold violet
    indigo crimson turquoise maroon beige navy lime olive coral magenta cyan amber ivory scarlet
lilac"""
)
ANIMALS = Pool(
    """cat dog horse rabbit parrot hamster turtle snake goat sheep cow pig duck goose hen owl eagle
    fox wolf bear deer mouse frog fish whale shark seal otter lion tiger monkey donkey camel
    lizard beaver badger hedgehog ferret canary pony"""
)
FOODS = Pool(
    """pizza pasta rice soup bread cheese salad curry sushi tacos noodles pancakes chocolate apples
    pears plums grapes cherries lemons oranges bananas mangoes tomatoes onions carrots potatoes
    beans lentils mushrooms eggs butter milk honey sugar flour salt pepper garlic ginger olives
    dumplings waffles yogurt cake pie cookies coffee tea"""
)
THINGS = Pool(
    """lamp table chair book pen phone laptop bicycle car train boat kite drum guitar piano violin
    camera clock mirror window door key box bag hat coat shoe scarf glove ring cup plate spoon
    knife bottle basket hammer nail rope ladder bucket candle stone feather map letter ticket coin
    button brush blanket pillow carpet tent wheel engine keyboard printer battery cable umbrella
    wallet jar rocket robot balloon puzzle statue whistle"""
)
JOBS = Pool(
    """pirate wizard doctor nurse teacher baker farmer sailor pilot lawyer painter poet chef knight
    detective astronaut gardener librarian singer dancer actor writer judge plumber carpenter
    tailor blacksmith florist engineer scientist programmer accountant firefighter mechanic barber
    fisherman photographer musician butler captain ninja robot dragon merchant shepherd beekeeper
    clockmaker translator cook guide coach tutor reporter historian chemist soldier monk"""
)
MANNERS = Pool(
    """friendly grumpy cheerful wise old young brave shy funny polite sleepy curious clever kind
    proud gentle strict calm noisy quiet lazy lucky famous mysterious honest patient serious tiny
    giant helpful loyal stern jolly bold"""
)
ADJECTIVES = Pool(
    """big small red blue old new bright dark quiet loud soft hard warm cold sweet sour heavy light
    quick slow round square wild tame empty full clean dirty dry wet rich poor sharp dull smooth
    rough tall short wide narrow deep golden silver wooden broken simple strange happy angry early
    late"""
)
VERBS = Pool(
    """open close move find send read write make take give keep lose buy sell build break paint
    clean wash cook bake cut fold carry push pull lift drop throw catch draw count check fix start
    stop copy save print sort mix pack plant water feed teach learn sing dance swim climb jump walk
    run book call order cancel rename delete add remove show list update search"""
)
NOUNS = Pool(
    """river mountain forest garden house street city village bridge tower castle market school
    office kitchen island beach field lake sea sky star moon sun cloud rain snow wind storm fire
    water earth tree flower leaf grass bird morning evening night day week month year summer
    winter music song story poem game dance picture dream idea plan question answer problem reason
    secret friend family child king queen army ship road path wall roof floor corner record
    meeting project report budget invoice contract order account message document folder file
    server network"""
)
HOBBIES = Pool(
    """chess|swimming|reading|cooking|hiking|painting|fishing|singing|dancing|gardening|running|
    cycling|knitting|sailing|skiing|climbing|photography|football|tennis|basketball|pottery|
    birdwatching|astronomy|archery|yoga|karate|stamp collecting|bird watching""".replace("\n", ""),
    "|",
)
MONTHS = Pool(
    "January February March April May June July August September October November December"
)
DAYS = Pool("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
FOREIGN = Pool(
    """café naïve jalapeño über straße garçon niño São Zürich Köln Łódź привет мир дом 東京
    你好 世界 こんにちは مرحبا नमस्ते été Ångström señor façade Dvořák Malmö 北京 книга amanhã
    coração"""
)
PLAIN = Pool(
    ADJECTIVES.seen + VERBS.seen + NOUNS.seen + THINGS.seen + ANIMALS.seen + FOODS.seen
    + ADJECTIVES.held_out + VERBS.held_out + NOUNS.held_out + THINGS.held_out + ANIMALS.held_out
)  # fmt: skip


def person(world: World) -> str:
    """A first name, made up half of the time."""
    return world.made_up().capitalize() if world.chance(0.5) else world.pick(FIRST_NAMES)


def place(world: World) -> str:
    """A city, made up one time in four."""
    return world.made_up().capitalize() if world.chance(0.25) else world.pick(CITIES)


def phrase(world: World, low: int = 2, high: int = 4) -> str:
    """A few unrelated words, real and made up."""
    count = world.rng.randint(low, high)
    return " ".join(
        world.made_up() if world.chance(0.2) else world.pick(PLAIN) for _ in range(count)
    )


def sentence(world: World) -> str:
    """A plausible short sentence."""
    rng = world.rng
    noun, other = world.pick_some(NOUNS, 2)
    return rng.choice(
        (
            f"The {world.pick(ADJECTIVES)} {noun} is near the {other}.",
            f"{person(world)} will {world.pick(VERBS)} the {noun} on {world.pick(DAYS)}.",
            f"I like {world.pick(FOODS)} and {world.pick(HOBBIES)}.",
            f"My {world.pick(THINGS)} is {world.pick(COLOURS)}!",
            f"Did you {world.pick(VERBS)} the {noun}?",
            f"{place(world)} has {world.number(2, 99)} {other}s.",
            f"Please {world.pick(VERBS)} the {world.pick(THINGS)}, {person(world)}.",
            f"this {noun} is {world.pick(ADJECTIVES)}",
        )
    )


def date(world: World) -> str:
    """An ISO date."""
    rng = world.rng
    return f"{rng.randint(1950, 2035)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def clock_time(world: World) -> str:
    """An hour and minute."""
    return f"{world.rng.randint(0, 23):02}:{world.rng.choice((0, 5, 15, 20, 30, 45)):02}"


def email(world: World) -> str:
    """An address at a made-up example domain."""
    domain = world.rng.choice(("example.com", "example.org", f"{world.made_up()}.com"))
    return f"{person(world).lower()}@{domain}"


def _web_address(world: World) -> str:
    return f"https://{world.made_up()}.com/{world.pick(NOUNS)}"


_ANYTHING: tuple[tuple[float, Callable[[World], str]], ...] = (
    (0.20, lambda world: world.made_up()),
    (0.10, lambda world: world.made_up().capitalize()),
    (0.12, lambda world: world.pick(PLAIN)),
    (0.18, phrase),
    (0.10, sentence),
    (0.08, lambda world: world.code()),
    (0.06, lambda world: str(world.number(0, 99999))),
    (0.04, email),
    (0.03, date),
    (0.03, lambda world: world.pick(FOREIGN)),
    (0.03, lambda world: phrase(world).title()),
    (0.03, _web_address),
)
_SHARES = [share for share, _ in _ANYTHING]


def anything(world: World) -> str:
    """Any short text somebody may want repeated, stored or passed to a tool."""
    [(_, draw)] = world.rng.choices(_ANYTHING, _SHARES)
    return draw(world)
