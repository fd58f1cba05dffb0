"""Words by kind: which adjectives take each other's place, and words of light, weather, seasons."""

from __future__ import annotations

import re

from captioning.grammar import ADJECTIVES, is_adjective


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SHADES = _set("dark light bright pale deep neon pastel vivid soft warm cool royal navy sky hot")
COLOURS = _set(
    "red orange yellow green blue purple violet pink brown black white grey gray golden gold silver"
    " cyan magenta turquoise teal beige cream ivory crimson scarlet maroon burgundy navy indigo"
    " lavender lilac olive lime mint peach coral salmon bronze tan khaki amber rainbow colorful"
    " colourful multicoloured multicolored blond blonde"
)
NAMES_TOO = _set(
    "orange gold silver olive lime mint peach coral salmon glass brick paper chocolate"
)
GROUPS = {  # adjectives of one group say the same thing in other ways: a new one ousts the old
    "opinion": _set("beautiful pretty ugly cute lovely nice elegant funny scary"),
    "size": _set("small large big little tiny huge giant"),
    "height": _set("tall short high low"),
    "length": _set("long"),
    "focus": _set("blurry blurred sharp"),
    "finish": _set("shiny matte matt glossy dull polished reflective sparkling glittering"),
    "wetness": _set("wet dry soaked"),
    "cleanness": _set("clean dirty dusty muddy spotless"),
    "state": _set("open closed broken"),
    "filling": _set("full empty"),
    "mood": _set("happy sad angry smiling laughing crying serious surprised"),
    "posture": _set("sitting standing lying sleeping running jumping walking flying"),
    "age": _set("old young new ancient modern vintage antique futuristic"),
    "freshness": _set("fresh ripe rotten rusty"),
    "hair": _set("fluffy furry hairy bald"),
    "form": _set("round square flat pointed spherical oval triangular"),
    "colour": COLOURS,
    "pattern": _set(
        "striped spotted dotted checkered chequered checked plaid patterned floral plain solid"
        " polka-dotted tiled zigzag"
    ),
    "material": _set(
        "wooden wood metal metallic glass plastic stone rubber leather brick concrete marble paper"
        " cardboard steel iron copper brass clay ceramic porcelain crystal ice wax wool woollen"
        " woolen knitted velvet silk denim cotton straw chocolate"
    ),
    "weather": _set(
        "snowy rainy sunny cloudy foggy misty stormy windy overcast snow-covered clear"
    ),
    "season": _set("autumnal wintry"),
}
ORDER = tuple(GROUPS)  # how English orders them before a noun, roughly
GROUP_OF = {word: group for group, words in GROUPS.items() for word in words}
MATERIALS_AS_NOUNS = {  # what a thing is made of, or bears, said by a noun
    "stripes": "striped", "spots": "spotted", "dots": "dotted", "checks": "checkered",
    "flowers": "floral", "wood": "wooden", "rust": "rusty", "fur": "furry", "dust": "dusty",
    "mud": "muddy", "snow": "snow-covered", "polish": "polished", "shine": "shiny",
    "gloss": "glossy",
}  # fmt: skip
OPPOSITES = {"bright": "dark", "shiny": "matte", "wet": "dry", "clean": "dirty", "old": "young"}
SIZES = _set(
    "bigger larger smaller taller shorter wider narrower thicker thinner longer huger tinier"
    " big large small tiny huge little giant enormous"
)
PARTICIPLES = {  # "make the cat sleep" is "a sleeping cat"
    "smile": "smiling", "laugh": "laughing", "cry": "crying", "sleep": "sleeping", "sit": "sitting",
    "stand": "standing", "lie": "lying", "run": "running", "jump": "jumping", "walk": "walking",
    "fly": "flying", "dance": "dancing", "wear": "wearing", "hold": "holding", "ride": "riding",
    "carry": "carrying", "eat": "eating", "drink": "drinking", "read": "reading",
    "glow": "glowing", "shine": "shining", "burn": "burning", "melt": "melting",
}  # fmt: skip
ASPECTS = {  # what of a thing is changed -> the groups whose words stand for it
    "colour": ("colour",),
    "color": ("colour",),
    "material": ("material", "pattern"),
    "texture": ("material", "pattern", "finish"),
    "surface": ("material", "pattern", "finish"),
    "finish": ("finish",),
    "pattern": ("pattern",),
    "age": ("age",),
    "mood": ("mood",),
}
LIGHTS = {  # as one says it -> the phrase
    **{w: f"at {w}" for w in ("night", "noon", "midnight", "midday", "sunset", "sunrise", "dawn",
                              "dusk", "twilight", "nighttime", "nightfall", "lunchtime")},
    **{w: f"in the {w}" for w in ("morning", "evening", "afternoon", "dark", "moonlight",
                                  "sunlight", "sunshine")},
    "night time": "at night", "night-time": "at night",
    "golden hour": "at golden hour", "blue hour": "at blue hour", "day": "in daylight",
    "daytime": "in the daytime", "daylight": "in daylight", "candlelight": "in candlelight",
    "lamplight": "in lamplight", "firelight": "in firelight",
}  # fmt: skip
LIGHT_ADJECTIVES = {
    "dark": "in the dark", "darker": "in dim light", "bright": "in bright light", "dim":
    "in dim light", "brighter": "in bright light", "moonlit": "in the moonlight", "sunlit":
    "in the sunlight", "dimly lit": "in dim light",
}  # fmt: skip
WEATHERS = {
    **{w: f"in the {w}" for w in ("snow", "rain", "fog", "mist", "wind", "sun")},
    "storm": "in a storm", "thunderstorm": "in a thunderstorm", "snowstorm": "in a snowstorm",
    "blizzard": "in a blizzard", "drizzle": "in a drizzle", "sandstorm": "in a sandstorm",
}  # fmt: skip
WEATHER_ADJECTIVES = {
    "snowy": "in the snow", "snowing": "in the snow", "rainy": "in the rain", "raining":
    "in the rain", "foggy": "in the fog", "misty": "in the mist", "windy": "in the wind", "sunny":
    "on a sunny day", "cloudy": "on a cloudy day", "overcast": "on an overcast day", "stormy":
    "in a storm",
}  # fmt: skip
SEASONS = {w: f"in {w}" for w in ("autumn", "winter", "spring", "summer", "fall")}
SEASON_ADJECTIVES = {"autumnal": "in autumn", "wintry": "in winter"}
SCENES = {
    **LIGHTS, **LIGHT_ADJECTIVES, **WEATHERS, **WEATHER_ADJECTIVES, **SEASONS, **SEASON_ADJECTIVES,
}  # fmt: skip
LIT = _set("light lights lighting lamp lamps glow sky")  # light, by what stands before them
MASS = _set(
    "grass sand snow ice water mud gravel wood stone metal glass moss dirt asphalt concrete tea"
    " coffee milk bread cheese rice fruit food furniture rain fog smoke fire fur hair"
)
ON = _set(  # where things are "on", "in" and "against"
    "table grass sand snow beach floor cloth street road lawn carpet rug desk bed sofa couch bench"
    " chair roof ice stage ground mat shelf board plate path pavement sidewalk hill mountain moon"
    " island bridge blanket tablecloth counter boat ship balcony terrace court pitch"
)
IN = _set(
    "forest city desert jungle room kitchen garden park field water space sea ocean sky river lake"
    " pool library cave museum cafe restaurant studio village town wood meadow church office"
    " bedroom bathroom classroom box car train stadium cloud"
)
AGAINST = _set("wall background backdrop curtain")
MEASURES = _set("bunch group pair piece slice herd flock pile stack couple row set lot")
WORN = _set(
    "hat cap glasses sunglasses scarf crown tie collar mask helmet beard moustache mustache wig"
    " necklace backpack earrings"
)
PRONOUNS = _set("it this them these him her he she they")
OUTSIDE = _set("outside outdoors inside indoors underwater underground")
PICTURES = _set("photo photograph picture image scene shot whole everything overall")
STYLE_WORDS = _set(
    "anime manga comic cartoon cubist cubism impressionist impressionism surrealist pixel pixelated"
    " monochrome sepia watercolor watercolour oil pencil charcoal ink crayon pastel vintage lego"
    " origami claymation steampunk cyberpunk baroque"
)
STYLE_NAMES = {
    "oil": "oil painting", "oils": "oil painting", "pencil": "pencil drawing", "charcoal":
    "charcoal drawing", "ink": "ink drawing", "crayon": "crayon drawing", "pastel":
    "pastel drawing", "pastels": "pastel drawing", "black and white": "black and white photo",
    "sepia": "sepia photo", "monochrome": "monochrome photo",
}  # fmt: skip
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse",
    "feet": "foot", "teeth": "tooth", "geese": "goose", "leaves": "leaf", "knives": "knife",
    "wolves": "wolf", "loaves": "loaf", "shelves": "shelf", "scarves": "scarf",
}  # fmt: skip
_SPELLINGS = {"grey": "gray", "colour": "color", "coloured": "colored", "colourful": "colorful"}


def group_of(word: str) -> str:
    """The group of an adjective, or "": "red" is a colour, "blue-green" too."""
    lowered = word.lower()
    if lowered in GROUP_OF:
        return GROUP_OF[lowered]
    parts = lowered.split("-")
    if len(parts) > 1 and all(part in COLOURS | SHADES for part in parts):
        return "colour"
    return GROUP_OF.get(parts[0], "") if parts[-1] in ("colored", "coloured") else ""


def describes(word: str) -> bool:
    """Whether a word is known to describe a thing rather than to name one."""
    lowered = word.lower()
    return bool(group_of(lowered)) or is_adjective(lowered) or lowered in SHADES


def rank(word: str) -> int:
    """Its place in the order of adjectives; what is not known stands next to the noun."""
    group = group_of(word)
    if word.lower() in ("plain", "solid"):  # "a plain red metal ball"
        return ORDER.index("form")
    if group:
        return ORDER.index(group)
    return ORDER.index("opinion") if word.lower() in ADJECTIVES else len(ORDER)


def singular(word: str) -> str:
    """A noun in the singular and in one spelling, for comparing; a guess."""
    lowered = word.lower()
    lowered = _SPELLINGS.get(lowered, lowered)
    if lowered in _IRREGULAR:
        return _IRREGULAR[lowered]
    if lowered.endswith("ies") and len(lowered) > 4:
        return lowered[:-3] + "y"
    if re.search(r"(s|x|z|ch|sh|o)es$", lowered):
        return lowered[:-2]
    if lowered.endswith("s") and not re.search(r"(ss|us|is)$", lowered):
        return lowered[:-1]
    return lowered


def is_plural(word: str) -> bool:
    """Whether a noun looks like several."""
    lowered = word.lower()
    return lowered in _IRREGULAR or (singular(lowered) != _SPELLINGS.get(lowered, lowered))


def positive(word: str) -> str:
    """ "shiny" of "shinier"; "" of a word that is no comparative of a known adjective."""
    lowered = word.lower()
    if not lowered.endswith("er"):
        return ""
    stem = lowered[:-2]
    guesses = [stem, stem + "e", stem[:-1] if stem[-1:] == stem[-2:-1] else ""]
    if stem.endswith("i"):
        guesses.insert(0, stem[:-1] + "y")
    scenes = LIGHT_ADJECTIVES.keys() | WEATHER_ADJECTIVES.keys()
    for guess in guesses:
        if len(guess) > 2 and (describes(guess) or guess in scenes):
            return guess
    return ""


def scene_class(words: list[str], preposition: str) -> str:
    """What a phrase such as "at night" is about: "light", "weather", "season", or "" (a place).

    Args:
        words: of the phrase after its preposition, without an article.
        preposition: such as "at"; "on the snow" is a place, "in the snow" is weather.
    """
    lowered = [word.lower() for word in words]
    head = lowered[-1] if lowered else ""
    if " ".join(lowered) in LIGHTS or head in LIGHTS or head in ("time", "hour"):
        weather = head == "day" and any(word in WEATHER_ADJECTIVES for word in lowered)
        return "weather" if weather else "light"
    if head in LIT and preposition in ("in", "under", "by"):
        return "weather" if any(word in WEATHER_ADJECTIVES for word in lowered) else "light"
    if (head in WEATHERS or head == "weather") and preposition in ("in", "during", "under"):
        return "weather"
    return "season" if head in SEASONS and preposition in ("in", "during") else ""
