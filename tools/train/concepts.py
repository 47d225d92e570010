"""The objects: emoji of some groups under the names that people type."""

import json

# Doubles of a clearer emoji, and those that are no object at this size.
LEFT_OUT = """monkey; dog; guide dog; service dog; cat; tiger; horse; cow; pig; pig nose; mouse; rabbit; dragon; whale;
water buffalo; camel; front-facing baby chick; hatching chick; wing; leaf fluttering in wind; four leaf clover;
brown mushroom; clinking beer mugs; clinking glasses; pouring liquid; fork and knife; stuffed flatbread; microbe;
empty nest; mate; oden; fish cake with swirl; fly; baby bottle; leafless tree; root vegetable; tamale; bug;
sheaf of rice; herb; beverage box; wilted flower; salt; canned food; ginger root; potted plant""".replace("\n", " ")

# Names that are typed for the standard's names; the first one is the concept's own.
NAMES = {
    "monkey face": ["monkey"], "dog face": ["dog", "puppy"], "cat face": ["cat", "kitten", "kitty"],
    "tiger face": ["tiger"], "horse face": ["horse", "pony"], "cow face": ["cow"], "pig face": ["pig", "piglet"],
    "mouse face": ["mouse"], "rabbit face": ["rabbit", "bunny"], "dragon face": ["dragon"],
    "two-hump camel": ["camel"], "ewe": ["sheep", "lamb"], "spouting whale": ["whale"], "orca": ["orca", "killer whale"],
    "rhinoceros": ["rhinoceros", "rhino"], "hippopotamus": ["hippopotamus", "hippo"], "panda": ["panda"],
    "chicken": ["chicken", "hen"], "rooster": ["rooster", "cock"], "baby chick": ["chick", "baby chick"],
    "black bird": ["blackbird", "crow"], "sauropod": ["brontosaurus", "dinosaur"], "T-Rex": ["t-rex", "tyrannosaurus"],
    "blowfish": ["blowfish", "pufferfish"], "spiral shell": ["shell", "seashell"], "honeybee": ["bee", "honeybee"],
    "lady beetle": ["ladybug", "ladybird"], "cricket": ["cricket", "grasshopper"], "blossom": ["daisy", "blossom"],
    "evergreen tree": ["fir tree", "pine tree"], "deciduous tree": ["tree"], "palm tree": ["palm tree", "palm"],
    "shamrock": ["clover", "shamrock"], "cherry blossom": ["cherry blossom", "sakura"], "bouquet": ["bouquet"],
    "nest with eggs": ["nest"], "turtle": ["turtle", "tortoise"], "polar bear": ["polar bear"], "wolf": ["wolf"],
    "lotus": ["lotus", "water lily"], "seedling": ["seedling", "sprout"], "paw prints": ["paw prints"],
    "red apple": ["apple", "red apple"], "cherries": ["cherries", "cherry"], "blueberries": ["blueberries", "blueberry"],
    "kiwi fruit": ["kiwi"], "ear of corn": ["corn"], "hot pepper": ["chili pepper", "hot pepper"],
    "eggplant": ["eggplant", "aubergine"], "leafy green": ["lettuce"], "peanuts": ["peanuts"], "pea pod": ["peas"],
    "tangerine": ["orange", "tangerine"], "grapes": ["grapes"], "bread": ["bread", "loaf of bread"],
    "baguette bread": ["baguette"], "cheese wedge": ["cheese", "piece of cheese"], "meat on bone": ["meat"],
    "poultry leg": ["drumstick", "chicken leg"], "cut of meat": ["steak"], "hamburger": ["hamburger", "burger"],
    "french fries": ["fries", "french fries"], "pizza": ["pizza", "slice of pizza"], "hot dog": ["hot dog"],
    "cooking": ["fried egg"], "shallow pan of food": ["paella"], "pot of food": ["stew"],
    "bowl with spoon": ["soup"], "green salad": ["salad"], "bento box": ["bento"], "rice cracker": ["rice cracker"],
    "cooked rice": ["rice", "bowl of rice"], "curry rice": ["curry"], "steaming bowl": ["noodles", "ramen"],
    "roasted sweet potato": ["sweet potato"], "fried shrimp": ["fried shrimp", "tempura"], "moon cake": ["moon cake"],
    "takeout box": ["takeout box"], "soft ice cream": ["ice cream cone"], "ice cream": ["ice cream"],
    "doughnut": ["donut", "doughnut"], "birthday cake": ["birthday cake"], "shortcake": ["cake", "slice of cake"],
    "cupcake": ["cupcake", "muffin"], "chocolate bar": ["chocolate", "bar of chocolate"], "candy": ["candy", "sweet"],
    "custard": ["pudding", "custard"], "honey pot": ["honey", "pot of honey"], "glass of milk": ["milk", "glass of milk"],
    "hot beverage": ["coffee", "cup of coffee"], "teacup without handle": ["tea", "cup of tea"],
    "bottle with popping cork": ["champagne", "bottle of champagne"], "wine glass": ["wine", "glass of wine"],
    "cocktail glass": ["cocktail", "martini"], "tropical drink": ["tropical drink"], "beer mug": ["beer", "mug of beer"],
    "tumbler glass": ["whisky", "glass of whisky"], "cup with straw": ["soda", "cup with a straw"],
    "ice": ["ice cube"], "fork and knife with plate": ["plate"], "kitchen knife": ["knife"], "jar": ["jar"],
    "flatbread": ["flatbread"], "olive": ["olive"], "beans": ["beans"], "mushroom": ["mushroom", "toadstool"],
    "shaved ice": ["shaved ice"], "egg": ["egg"], "cactus": ["cactus"], "sushi": ["sushi"], "worm": ["worm"],
}
NO_ARTICLE = set("""paw prints; grapes; cherries; blueberries; peanuts; peas; beans; fries; pancakes; bread; cheese; meat;
bacon; popcorn; butter; rice; curry; noodles; spaghetti; sushi; honey; milk; coffee; tea; champagne; wine; beer; soda;
chocolate; corn; lettuce; garlic; broccoli; soup; stew; salad; chopsticks; sake; bubble tea; ice cream; shaved ice;
paella; bento; tempura; fried shrimp; candy; ramen; french fries; coral""".replace("\n", " ").split("; "))


def concepts(path, groups):
    """`(emoji, [names])` of every concept, in the standard's order."""
    dropped = set(LEFT_OUT.split("; "))
    found = []
    for emoji, about in json.loads(path.read_text()).items():
        name = about["name"]
        if about["group"] in groups and name not in dropped:
            found.append((emoji, NAMES.get(name, [name.lower()])))
    return found


def code(emoji, keep_selector):
    """An emoji's file name in the picture sets."""
    points = [f"{ord(c):04x}" for c in emoji]
    return "-".join(p for p in points if keep_selector or p != "fe0f")


def with_article(words, name):
    """`a small fox`, `an owl`, `grapes`."""
    phrase = " ".join([*words, name])
    if name in NO_ARTICLE:
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
