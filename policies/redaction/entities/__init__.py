"""The entities that are on by default. What each field means is said in `entity.py`; the order is the priority.

The tables, by what they find: `blocks.py`, `models.py`, `clouds.py`, `services.py`, `messaging.py` and `payment.py`, which
`marked.py` puts in their order; `named.py`, which leaves to those what they know; `persons.py`, `network.py` and
`telephones.py`. `making.py` is what they are made with. A new entity is its lines in a table, and one in the order.
Where only the surroundings give a secret away, they stay readable (`context`).

Each format's source stands beside it: the maker's documentation, else the facts in the public rules of secret scanners
(gitleaks 8, TruffleHog 3, GitHub's "Supported secret scanning patterns", Microsoft Purview's "Azure ... key" definitions).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..entity import Entity
from . import named, network, persons, telephones
from .making import Described
from .marked import MARKED

DEFAULTS: tuple[Described, ...] = (
    *MARKED,
    Described(named.AWS_SECRET_NAMED, "secret access keys after their name: AWS"),
    Described(named.SECRET, "a random value after a name like api_key, client_secret or Bearer"),
    Described(named.PASSWORD, "a password that mixes letters, digits and marks, after its name"),
    Described(named.PASS, "a password after pass, pwd or secret"),
    Described(named.KEY, "a key that mixes letters, digits and marks, after its name"),
    Described(named.ARGUMENT, "a password on a command line (-u user:password, -p password)"),
    Described(named.BASIC, "user and password in an HTTP Basic header"),
    Described(persons.IBAN, "bank accounts (IBAN)"),
    Described(persons.CARD, "payment cards"),
    Described(persons.CARD_TRACK, "payment cards on a magnetic stripe"),
    Described(persons.CARD_CALLED, "payment cards after a word like phone"),
    Described(persons.US_SSN, "US social security numbers"),
    Described(persons.US_SSN_NAMED, "US social security numbers in one piece, where they are named"),
    Described(network.IPV4, "IPv4 addresses"),
    Described(network.IPV4_NAMED, "IPv4 addresses after a word like host"),
    Described(network.IPV6, "IPv6 addresses"),
    Described(persons.EMAIL, "e-mail addresses"),
    Described(persons.EMAIL_QUOTED, "e-mail addresses with a quoted local part, in what turns out not to be JSON"),
    Described(persons.EMAIL_UNSPACED, "e-mail addresses in Chinese, Japanese, Korean, Thai"),
    Described(telephones.PHONE, "telephone numbers: international form; national forms of the configured regions"),
)

# What stays, each under the name of an entity that it goes with: first where it is as long as what it spares, else last.
_DECOYS_FIRST = (persons.GIT_REMOTE,)
_DECOYS_LAST = (
    network.VERSION,
    network.PINNED,
    network.PERHAPS_VERSION,
    network.NEVER_IPV4,
    telephones.NOT_PHONE,
    telephones.NUMBERED,
    telephones.NUMBERED_WHOLE,
)


def entities(phone_regions: Iterable[str] = ()) -> tuple[Entity, ...]:
    """All of them, with the national telephone numbers of `phone_regions` (ISO 3166 codes). Several may share a name.

    Raises `ValueError` for a region that has no numbering plan."""
    regions = tuple(dict.fromkeys(phone_regions))
    national = telephones.national(regions) if regions else ()
    return (*_DECOYS_FIRST, *(described.entity for described in DEFAULTS), *national, *_DECOYS_LAST)
