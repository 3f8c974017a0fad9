"""Everyday tools with the requests that people make of them."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.pools import Phrases, Pool, World, expand
from training.words import (
    CITIES,
    COUNTRIES,
    FOODS,
    NOUNS,
    THINGS,
    clock_time,
    date,
    email,
    person,
    phrase,
    place,
)

_LANGUAGES = Pool("French German Spanish Italian Japanese Chinese Arabic Hindi Russian Portuguese")
_SIGNS = Pool(
    "Aries Taurus Gemini Cancer Leo Virgo Libra Scorpio Sagittarius Capricorn Aquarius Pisces"
)
_FILE_ENDINGS = ("txt", "md", "csv", "json", "py", "log", "pdf")


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter: the names it may bear, its JSON type, its enum and how values are drawn."""

    names: str
    type: str
    draw: Callable[[World], Any]
    options: tuple[str, ...] = ()


def _text(draw: Callable[[World], str], names: str) -> Slot:
    return Slot(names, "string", draw)


def _count(names: str, low: int, high: int) -> Slot:
    return Slot(names, "integer", lambda world: world.number(low, high))


def _choice(names: str, options: str) -> Slot:
    values = tuple(options.split())
    return Slot(names, "string", lambda world: world.rng.choice(values), values)


def _file(world: World) -> str:
    stem = world.made_up() if world.chance(0.5) else world.pick(NOUNS)
    return f"{stem}.{world.rng.choice(_FILE_ENDINGS)}"


def _thing(world: World) -> str:
    return world.made_up() if world.chance(0.3) else world.pick(THINGS)


def _dish(world: World) -> str:
    return world.made_up() if world.chance(0.3) else world.pick(FOODS)


def _words(world: World) -> str:
    return phrase(world, 1, 4)


def _ticker(world: World) -> str:
    return "".join(
        world.rng.choice(string.ascii_uppercase) for _ in range(world.rng.choice((3, 4)))
    )


SLOTS: dict[str, Slot] = {
    "city": _text(place, "location|city|place|location|city"),
    "origin": _text(place, "origin|from|source|departure"),
    "destination": _text(place, "destination|to|target|arrival"),
    "country": _text(lambda world: world.pick(COUNTRIES), "country|nation"),
    "unit": _choice("unit|units|scale", "celsius fahrenheit"),
    "query": _text(_words, "query|q|text|search|keywords"),
    "topic": _text(_words, "topic|subject|about"),
    "address": _text(email, "to|email|recipient|address"),
    "title": _text(_words, "subject|title|name|headline"),
    "body": _text(lambda world: phrase(world, 2, 6), "body|message|text|content"),
    "person": _text(person, "name|person|user|recipient|contact"),
    "a": _count("a|x|first|left", 0, 999),
    "b": _count("b|y|second|right", 0, 999),
    "amount": _count("amount|value|sum", 1, 9999),
    "quantity": _count("quantity|count|number|n", 1, 50),
    "minutes": _count("minutes|duration|time", 1, 120),
    "degrees": _count("degrees|temperature|value", 5, 35),
    "people": _count("people|guests|party_size|seats", 1, 24),
    "sides": _count("sides|faces|n", 2, 100),
    "order": _text(
        lambda world: world.code() if world.chance(0.4) else str(world.number(1000, 999999)),
        "order_id|id|order|order_number",
    ),
    "code": _text(lambda world: world.code(), "tracking_id|code|number|tracking_number"),
    "priority": _choice("priority|level|urgency", "low medium high"),
    "state": _choice("state|status|mode", "on off"),
    "room": _text(
        lambda world: (
            world.rng.choice(("kitchen", "bedroom", "office", "hall", "bathroom", "garage"))
            if world.chance(0.6)
            else world.made_up()
        ),
        "room|location|area|zone",
    ),
    "language": Slot("language|target|lang|to", "string", lambda world: world.pick(_LANGUAGES)),
    "ticker": _text(_ticker, "symbol|ticker|stock"),
    "currency": _choice("from|source|base|from_currency", "USD EUR GBP JPY CHF INR"),
    "other_currency": _choice("to|target|quote|to_currency", "AUD CAD SEK BRL CNY MXN"),
    "date": _text(date, "date|day|when"),
    "time": _text(clock_time, "time|at|when"),
    "song": _text(_words, "song|title|track|name"),
    "item": _text(_thing, "item|product|name|article"),
    "word": _text(_thing, "word|term|text"),
    "dish": _text(_dish, "dish|food|name|meal"),
    "file": _text(_file, "path|filename|file|name"),
    "task": _text(_words, "task|text|item|todo"),
    "movie": _text(_words, "movie|title|film"),
    "rating": _count("rating|stars|score", 1, 10),
    "size": _choice("size|format", "small medium large"),
    "sign": _text(lambda world: world.pick(_SIGNS), "sign|star_sign|zodiac"),
    "town": Slot("city|town|place", "string", lambda world: world.pick(CITIES)),
}


@dataclass(frozen=True, slots=True)
class Domain:
    """One thing that a tool can do."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    requests: Phrases
    slots: tuple[str, ...]
    required: tuple[str, ...]


def _domain(names: str, description: str, *requests: str) -> Domain:
    used = [
        {field for _, field, _, _ in string.Formatter().parse(request) if field}
        for pattern in requests
        for request in expand(pattern)
    ]
    everything = sorted(set().union(*used), key=lambda slot: list(SLOTS).index(slot))
    always = set.intersection(*used)
    return Domain(
        tuple(names.split()),
        tuple(expand(description)),
        Phrases(*requests),
        tuple(everything),
        tuple(slot for slot in everything if slot in always),
    )


DOMAINS: tuple[Domain, ...] = (
    _domain(
        "get_weather weather get_current_weather current_weather fetch_weather weather_lookup",
        "[Get|Returns|Look up] the [current |][weather|temperature]"
        "[ in a city| for a given location|][.|]",
        "[What's|What is|How's|How is] the weather [in|like in|today in|now in] {city}[?|]",
        "[What's|What is] the weather in {city} in {unit}[?|]",
        "[Tell me|Show me|Get|Check] the weather [in|for] {city}[, in {unit}|][.|]",
        "[Will it rain|Is it raining|Is it cold|Is it warm|How hot is it|Is it sunny] in "
        "{city}[?| today?|]",
        "[What is|What's] the temperature in {city}[, in {unit}|][?|]",
        "[Weather in|Weather for|Forecast for] {city}[, please|][.|]",
    ),
    _domain(
        "get_time current_time get_current_time time_in clock world_clock",
        "[Get|Returns|Tell] the [current |local |]time[ in a city| at a place|][.|]",
        "[What time is it|What is the time|What's the time] in {city}[?| now?|]",
        "[Tell me|Give me|Get] the [local |current |]time in {city}[.|]",
    ),
    _domain(
        "search web_search search_web google find_pages lookup internet_search",
        "[Search|Look up things on|Find pages on] the [web|internet][.|]",
        "[Search|Search the web|Look|Search online] for {query}[.|]",
        "[Google|Look up|Find pages about|Find information about] {query}[.|]",
        "[Can you|Please|Could you] search [the web |the internet |]for {query}[?|.|]",
    ),
    _domain(
        "send_email email mail send_mail compose_email",
        "[Send|Sends|Write] an [email|e-mail][ to somebody| message|][.|]",
        "[Send an email|Write an email|Email|Send a mail] to {address} with subject {title}[.|]",
        "[Send an email|Write an email] to {address} with subject {title} and body {body}",
        "Email {address} about {title}[.|]",
    ),
    _domain(
        "add add_numbers sum plus addition",
        "[Add|Adds|Sum] two numbers[.|]",
        "[What is|What's|Calculate|Compute] {a} [+|plus] {b}[?|]",
        "[Add|Sum|Add up] {a} and {b}[.|]",
        "[Add the numbers|What is the sum of] {a} and {b}[.|?|]",
    ),
    _domain(
        "multiply multiply_numbers product times",
        "[Multiply|Multiplies] two numbers[.|]",
        "[What is|What's|Calculate|Compute] {a} [*|times|x|multiplied by] {b}[?|]",
        "[Multiply] {a} [by|and|with] {b}[.|]",
    ),
    _domain(
        "subtract minus difference subtract_numbers",
        "[Subtract|Subtracts] [a number from another|two numbers][.|]",
        "[What is|What's|Calculate|Compute] {a} [-|minus] {b}[?|]",
    ),
    _domain(
        "create_ticket open_ticket new_ticket file_bug report_issue",
        "[Create|Open|File] a [support |]ticket[.|]",
        "[Create|Open|File|Make] a [support |new |]ticket[:| about| titled] {title}",
        "[Create|Open|File] a {priority} priority ticket[:| about| titled] {title}",
        "[Create|Open] a ticket about {title} with priority {priority}[.|]",
    ),
    _domain(
        "set_timer start_timer timer countdown",
        "[Set|Start] a timer[.| in minutes.|]",
        "[Set|Start] a timer [for|of] {minutes} minutes[.|]",
        "[Set a|Start a|I need a] {minutes} minute timer[.|]",
    ),
    _domain(
        "set_alarm alarm create_alarm wake_up",
        "[Set|Create] an alarm[.| at a time.|]",
        "[Set an alarm|Wake me|Wake me up|Create an alarm] [at|for] {time}[.|]",
    ),
    _domain(
        "translate translate_text translation translator",
        "[Translate|Translates] [a text|text|words][ into another language|][.|]",
        "[Translate|Please translate] [the word |]{word} [to|into] {language}[.|]",
        "[How do you say|What is] {word} in {language}[?|]",
    ),
    _domain(
        "get_stock_price stock_price quote get_quote stock",
        "[Get|Returns|Look up] the [stock price|price of a stock|share price][.|]",
        "[What is|What's|Get|Show] the [stock |share |]price of {ticker}[?|.|]",
        "[How is|How much is] {ticker} [trading|stock][?| today?]",
    ),
    _domain(
        "convert_currency currency_converter convert exchange money_convert",
        "[Convert|Converts|Exchange] [money|an amount][ between currencies| to another "
        "currency|][.|]",
        "[Convert|Change|Exchange] {amount} {currency} [to|into] {other_currency}[.|]",
        "[How much is|What is] {amount} {currency} in {other_currency}[?|]",
    ),
    _domain(
        "book_flight find_flights search_flights flights fly",
        "[Book|Find|Search] [a flight|flights][ between two cities|][.|]",
        "[Book a flight|Find flights|Find a flight|I need a flight] from {origin} to "
        "{destination}[.|]",
        "[Book a flight|Find flights|Fly me] from {origin} to {destination} on {date}[.|]",
    ),
    _domain(
        "play_music play play_song music_player start_music",
        "[Play|Start] [a song|music|a track][.|]",
        "[Play|Please play|Play the song|I want to hear|Put on] {song}[.|]",
    ),
    _domain(
        "set_light light switch_light lights control_light",
        "[Switch|Turn|Control] the [light|lights][ on or off| in a room|][.|]",
        "[Turn|Switch] {state} the [light|lights|lamp] in the {room}[.|]",
        "[Turn|Switch] the {room} [light|lights|lamp] {state}[.|]",
    ),
    _domain(
        "get_order order_status find_order lookup_order check_order",
        "[Get|Look up|Check] [an order|the status of an order|an order's status][.|]",
        "[Where is|What is the status of|Check|Show me|Look up] [my |]order {order}[?|.|]",
        "[What happened to|Find|Track] order {order}[?|.|]",
    ),
    _domain(
        "cancel_order stop_order delete_order order_cancel",
        "[Cancel|Cancels|Stop] an order[.|]",
        "[Cancel|Please cancel|Stop|I want to cancel] [my |the |]order {order}[.|]",
    ),
    _domain(
        "add_to_cart cart_add buy order_item purchase",
        "[Add|Put] [an item|a product|something] [to|into] the [shopping |]cart[.|]",
        "[Add|Put] {quantity} {item}s [to|into|in] my [cart|basket][.|]",
        "[Buy|Order|I want to buy] {quantity} {item}s[.|]",
    ),
    _domain(
        "create_event add_event calendar_add schedule new_event schedule_meeting",
        "[Create|Add|Schedule] [an event|a meeting|a calendar entry][.|]",
        "[Schedule|Plan|Create|Add] [a meeting|an event|a call] [called|named|about] {title} on "
        "{date}[.|]",
        "[Put|Add] {title} [in|to|on] my calendar [for|on] {date}[.|]",
    ),
    _domain(
        "send_message message text_contact sms send_text",
        "[Send|Sends] [a message|a text|an SMS][ to a contact| to a person|][.|]",
        "[Send a message|Write|Text|Send a text] to {person}[:| saying] {body}",
        "[Tell|Message|Text] {person} that {body}",
    ),
    _domain(
        "get_news news headlines latest_news",
        "[Get|Fetch|Find] the [latest |]news[ about a topic|][.|]",
        "[What is the|What's the|Get the|Show me the|Any] [latest |]news [about|on] {topic}[?|.|]",
    ),
    _domain(
        "define define_word dictionary word_meaning lookup_word",
        "[Define|Look up|Explain] a word[ in the dictionary|][.|]",
        "[What does|What does the word] {word} mean[?|]",
        "[Define|Define the word|Look up the word|Give me the definition of] {word}[.|]",
    ),
    _domain(
        "find_recipe recipe get_recipe recipe_search cook",
        "[Find|Get|Look up] a recipe[ for a dish|][.|]",
        "[Find|Give me|Get|I want|Show me] a recipe for {dish}[.|]",
        "How [do I|can I] [cook|make|prepare] {dish}[?|]",
    ),
    _domain(
        "set_temperature thermostat heating set_heat heat_room",
        "[Set|Change] the [temperature|heating][ of a room|][.|]",
        "[Set|Change] the [temperature in the|heating in the|temperature of the] {room} to "
        "{degrees}[.| degrees.]",
        "[Heat|Warm] the {room} to {degrees} degrees[.|]",
    ),
    _domain(
        "delete_file remove_file rm delete erase_file",
        "[Delete|Remove|Erase] a file[.|]",
        "[Delete|Remove|Erase|Please delete] [the file |]{file}",
    ),
    _domain(
        "read_file open_file cat show_file get_file",
        "[Read|Open|Show] a file[.|]",
        "[Read|Open|Show me|Print|What is in] [the file |]{file}",
    ),
    _domain(
        "get_distance distance how_far route directions get_route",
        "[Get|Compute|Find] the [distance|way|route] [between|from one to another of] two "
        "[places|cities][.|]",
        "[How far is it|What is the distance|Find the way|Show the route] from {origin} to "
        "{destination}[?|]",
    ),
    _domain(
        "reserve_table book_table restaurant_booking reserve",
        "[Reserve|Book] a table[ at a restaurant|][.|]",
        "[Reserve|Book|I need] a table for {people}[ people|] at {time}[.|]",
        "[Reserve|Book] a table for {people}[ people|][.|]",
    ),
    _domain(
        "roll_dice roll dice throw_dice",
        "[Roll|Throw] [a die|dice][.| with some sides.]",
        "[Roll|Throw] a [die|dice] with {sides} sides[.|]",
        "[Roll|Throw] a {sides} sided [die|dice][.|]",
    ),
    _domain(
        "reset_password password_reset new_password recover_account",
        "[Reset|Change] [a|the|a user's] password[.|]",
        "[Reset|Please reset|Change] the password [of|for] {address}",
        "{address} forgot the password[, reset it|][.|]",
    ),
    _domain(
        "track_package track parcel_status tracking package_status",
        "[Track|Locate|Find] a [package|parcel][.|]",
        "[Track|Where is|Locate|Find] [my |the ][package|parcel] {code}[?|.|]",
    ),
    _domain(
        "add_todo create_task todo new_task add_task",
        "[Add|Create] a [task|to-do item|todo][.|]",
        "[Add|Put] {task} to my [to-do list|todo list|tasks|list][.|]",
        "[Create|Add|New] [a |]task: {task}",
    ),
    _domain(
        "set_reminder remind reminder create_reminder",
        "[Set|Create] a reminder[.|]",
        "Remind me at {time} to {task}[.|]",
        "[Set|Create] a reminder [to|for] {task} at {time}[.|]",
    ),
    _domain(
        "rate_movie rate film_rating review_movie",
        "[Rate|Give stars to] a [movie|film][.|]",
        "[Rate|Give] [the movie|the film] {movie} {rating} [stars|points][.|]",
    ),
    _domain(
        "get_population population people_count inhabitants",
        "[Get|Returns] the population[ of a country|][.|]",
        "[What is the population of|How many people live in|Population of] {country}[?|]",
    ),
    _domain(
        "order_pizza order_food food_delivery deliver_food",
        "[Order|Deliver] [food|a meal][.|]",
        "[Order|Get me|I want|Bring me] a {size} {dish}[.|]",
    ),
    _domain(
        "get_horoscope horoscope star_sign daily_horoscope",
        "[Get|Read] [today's|the] horoscope[ for an astrological sign|][.|]",
        "[What is|What's|Read] my horoscope[?| today?] I am [a |an |]{sign}[.|]",
        "[Get|Show me|Read] the horoscope [for|of] {sign}[.|]",
    ),
    _domain(
        "get_delivery_date delivery_date when_delivered arrival_date",
        "[Get|Returns] the delivery date [of|for] [an|a customer's] order[.|]",
        "When [will|does] [my |]order {order} [arrive|come|get here][?|]",
        "[What is|Get|Tell me] the delivery date of [my |]order {order}[?|.|]",
    ),
    _domain(
        "search_knowledge_base ask_docs search_docs find_documents query_knowledge",
        "[Search|Query] [the|a] [knowledge base|documentation|handbook][.|]",
        "[Search|Look in|Check] the [knowledge base|documents|docs|handbook] for {query}[.|]",
        "What do [the docs|our documents|the handbook] say about {query}[?|]",
    ),
    _domain(
        "find_hotel book_hotel hotels hotel_search",
        "[Find|Book] [a hotel|a room|hotels][ in a city|][.|]",
        "[Find|Book|I need] [a hotel|a hotel room] in {town}[ for {people} people|][.|]",
    ),
    _domain(
        "get_user find_user lookup_user user_info get_contact",
        "[Get|Find|Look up] a [user|contact|person][.| by name.]",
        "[Find|Look up|Show me|Get] the [user|contact|person] [named |called |]{person}[.|]",
        "[What is the phone number of|Who is|Do you have the details of] {person}[?|]",
    ),
)
