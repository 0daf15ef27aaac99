"""Made-up prompts about a few subjects, in one language: words of the subject among words that all prompts have."""

import random
from typing import Final

GLUE: Final = (
    "how do i what is the best way to of with for a my and please can you explain why does when it in on this there"
)
SUBJECTS: Final = {
    "cooking": "bread flour yeast oven dough onion butter garlic soup pan recipe roast sugar salt pepper tomato cheese "
    "sauce boil knead",
    "gardens": "rose soil seed compost prune tulip lawn shrub watering pot leaf blossom hedge weed bulb root tree spade",
    "networks": "router packet subnet firewall gateway latency switch routing dns socket port proxy bandwidth tunnel",
}


def prompt(rng: random.Random, *subjects: str) -> str:
    """Return a prompt about one of these subjects."""
    own, glue = SUBJECTS[rng.choice(subjects)].split(), GLUE.split()
    return " ".join(rng.choice(own if rng.random() < 0.4 else glue) for _ in range(rng.randint(15, 40)))
