"""Invented film titles for the generated sample."""

from __future__ import annotations

import numpy as np

_ADJECTIVES: tuple[str, ...] = (
    "Silent",
    "Crimson",
    "Last",
    "Hidden",
    "Golden",
    "Broken",
    "Distant",
    "Electric",
)
_ADJECTIVES += ("Midnight", "Paper", "Winter", "Burning", "Secret", "Hollow", "Velvet", "Iron")
_ADJECTIVES += ("Wandering", "Forgotten", "Savage", "Gentle", "Glass", "Lonely", "Painted")
_NOUNS: tuple[str, ...] = (
    "Harbour",
    "Garden",
    "Letter",
    "Empire",
    "Horizon",
    "Stranger",
    "River",
    "Promise",
)
_NOUNS += ("Orchard", "Signal", "Voyage", "Detective", "Carnival", "Kingdom", "Station")
_NOUNS += ("Lighthouse", "Waltz", "Outlaw", "Mirror", "Machine", "Tide", "Symphony", "Valley")
_PLACES: tuple[str, ...] = (
    "Lisbon",
    "the North",
    "Avalon",
    "Montmartre",
    "the Moon",
    "Samarkand",
    "Tomorrow",
)
_PLACES += ("Brooklyn", "the Prairie", "Trieste", "the Deep", "Old Shanghai", "Havana")


def film_titles(count: int, random: np.random.Generator) -> list[str]:
    """Generates distinct titles; once all combinations are used, sequels are numbered.

    Args:
        count: The number of titles.
        random: The random generator, which determines their order.
    """
    titles = [f"The {adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    titles += [f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS]
    titles += [f"The {noun} of {position}" for noun in _NOUNS for position in _PLACES]
    order = random.permutation(len(titles))
    made = []
    for number in range(count):
        part, position = divmod(number, len(titles))
        made.append(titles[order[position]] + (f" {part + 1}" if part else ""))
    return made
