"""Names of organizations, the slugs derived from them, and the physical names of their spaces.

A **name** is what people read: any script, kept as typed but for Unicode's NFC form and the spaces. A **slug** is what
addresses and physical names are made of: 2 to 48 of ``a-z``, ``0-9`` and single inner hyphens. Uniqueness is by slug:
"Acme Corp", "ACME corp", "acme_corp", "acme.corp" and "Acme® Corp" are all ``acme-corp``: only one of them can exist.

Words that mix alphabets with look-alike letters are refused (UTS #39); a word wholly in one of them is somebody's
language and accepted. Its slug tells it from its Latin twin: Cyrillic "АСМЕ" is ``asme``.

Everything here is a pure function. The tables of Unicode are those of the running Python: a character that is newer
than them counts as unassigned.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from base64 import b32encode
from functools import cache
from importlib import resources
from typing import Literal
from urllib.parse import unquote

from slugify import slugify

from orgstead.errors import InvalidName, InvalidSlug, NameReserved, Problem

MAX_NAME_GRAPHEMES = 128
MAX_NAME_BYTES = 255
MAX_STACKED_MARKS = 4
"""Combining marks in a row, as UTS #39, section 5.4 recommends."""

MIN_SLUG = 2
MAX_SLUG = 48
"""The shortest limit of the engines on an identifier is 63 bytes, and a space's name is the slug and a little more."""

Naming = Literal["slug", "id"]

_LONGEST_INPUT = 1024
"""Code points of any input worth looking at: putting marks in order is quadratic in their number."""

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ULID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")
_SPACES = re.compile(r"[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")

_NO_CHARACTER = frozenset({"Cs", "Co", "Cn"})
_NOT_SHOWN = frozenset({"Cc", "Cf", "Zl", "Zp"})
# Default-ignorable characters whose category does not give them away, and the blank Braille pattern.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

# First words of Unicode's character names: the alphabets that share shapes with Latin or with one another.
_LOOK_ALIKE_SCRIPTS = frozenset(
    {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "OSAGE", "CANADIAN", "TIFINAGH"}
)
# Micro and ohm, as signs and as the letters they normalize to: used beside Latin units, and like no Latin letter.
_UNIT_SIGNS = frozenset("\u00b5\u03bc\u03a9")
_SKIN_TONES = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")

# Signs of law are no part of a name; an apostrophe joins what it stands between ("O'Brien" is ``obrien``).
_DROPPED_IN_SLUG = {ord(sign): None for sign in "®©™℠℗'"}


# --- names ----------------------------------------------------------------------------------------------------------


def checked_name(text: str, *, pointer: str = "/name") -> str:
    """The name as it is stored: NFC, trimmed, each run of Unicode spaces one space.

    ``pointer`` is where the text stood in the input. Raises ``InvalidName`` where there is nothing left; beyond 128
    graphemes or 255 bytes of UTF-8; for controls, line breaks, format and other invisible characters (joiners and
    variation selectors too), code points that are no characters; marks without a letter or more than four in a row;
    where no letter or digit is left, percent-decoded or not; and for words that mix look-alike alphabets.
    """
    if len(text) > _LONGEST_INPUT:
        raise _too_long(pointer)
    plain = text.isascii() and text.isprintable()
    if not plain:
        _refuse_hidden(text, pointer)
        text = unicodedata.normalize("NFC", text)
    name = _SPACES.sub(" ", text).strip(" ")
    if not name:
        raise _invalid("The name is empty; give one with at least one letter or digit.", pointer)
    if len(name.encode()) > MAX_NAME_BYTES or _graphemes(name) > MAX_NAME_GRAPHEMES:
        raise _too_long(pointer)
    if not plain:
        _refuse_stray_marks(name, pointer)
        _refuse_mixed_words(name, pointer)
    if not _has_letter_or_digit(name):
        raise _invalid("The name has no letter and no digit; add at least one.", pointer)
    return name


def cleaned_name(text: str, *, pointer: str = "/name") -> str:
    """The name that a person meant by text from a spreadsheet or a web page, as ``checked_name`` gives it.

    Tabs, line breaks and every kind of space become one space; controls and invisible characters go. Raises
    ``InvalidName`` for what is then still not a name.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if char.isspace() else char for char in text if char.isspace() or not _is_hidden(char))
    return checked_name(text, pointer=pointer)


def same_name(text: str, *, name: str, slug: str) -> bool:
    """Whether ``text`` names the organization of this name and slug: as its slug or its name, in any case and form.

    Never raises, whatever the text.
    """
    if len(text) > _LONGEST_INPUT:
        return False
    wanted = _name_key(text)
    return wanted == slug or wanted == _name_key(name)


def _name_key(text: str) -> str:
    """Equal for names that differ in case, normal form or spaces only."""
    text = unicodedata.normalize("NFC", text)
    return _SPACES.sub(" ", text).strip(" ").casefold()


def _refuse_hidden(text: str, pointer: str) -> None:
    for position, char in enumerate(text, start=1):
        if unicodedata.category(char) in _NO_CHARACTER:
            raise _invalid(f"Code point {position} of the name is not an assigned character; remove it.", pointer)
        if _is_hidden(char):
            detail = f"Character {position} of the name is a control or invisible; type the name instead of pasting it."
            raise _invalid(detail, pointer)


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _NOT_SHOWN or _BLANK.match(char) is not None


def _refuse_stray_marks(name: str, pointer: str) -> None:
    stacked, base = 0, " "
    for char in name:
        if _is_mark(char):
            stacked += 1
            if base == " ":
                raise _invalid("An accent or other mark in the name has no letter to stand on.", pointer)
            if stacked > MAX_STACKED_MARKS:
                detail = f"A letter of the name has more than {MAX_STACKED_MARKS} marks on it; leave some out."
                raise _invalid(detail, pointer)
        else:
            stacked, base = 0, char


def _refuse_mixed_words(name: str, pointer: str) -> None:
    alphabet = None
    for char in name:
        if char.isalpha():
            script = _script(char)
            if script not in _LOOK_ALIKE_SCRIPTS:
                continue
            if alphabet is not None and script != alphabet:
                detail = (
                    "A word of the name mixes letters of alphabets that look alike; write each word in one alphabet."
                )
                raise _invalid(detail, pointer)
            alphabet = script
        elif not (char.isalnum() or _is_mark(char)):
            alphabet = None


def _script(char: str) -> str:
    """The first word of the Unicode name of a letter, which is its script; nothing for signs of units.

    Compatibility forms ("ＡＢＣ", "𝐀") count as the letters they stand for. The standard library knows no scripts.
    """
    if char in _UNIT_SIGNS:
        return ""
    return unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").partition(" ")[0]


def _has_letter_or_digit(name: str) -> bool:
    """Looks behind percent-encoding, however deep: ``%2e%2e%2f`` is a path, not a name."""
    while "%" in name and (decoded := unquote(name)) != name:
        name = decoded
    return any(char.isalnum() for char in unicodedata.normalize("NFKC", name))


def _graphemes(name: str) -> int:
    """How many characters a person sees, never fewer than there are (UAX #29 without its tables).

    Exact for letters with marks and for emoji with a skin tone. A flag counts as two, and so may a conjoining jamo that
    NFC could not compose; joiners and variation selectors cannot be in a name. A dependency would buy only that.
    """
    if name.isascii():
        return len(name)
    return sum(1 for char in name if not _is_mark(char) and char not in _SKIN_TONES)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _invalid(detail: str, pointer: str) -> InvalidName:
    return InvalidName(detail, problems=(Problem(pointer, InvalidName.code, detail),))


def _too_long(pointer: str) -> InvalidName:
    limits = f"{MAX_NAME_GRAPHEMES} characters and {MAX_NAME_BYTES} bytes"
    return _invalid(f"The name is too long; shorten it to at most {limits} of UTF-8.", pointer)


# --- slugs ----------------------------------------------------------------------------------------------------------


def derived_slug(name: str, *, pointer: str = "/name") -> str:
    """The slug of a name, as ``plain_slug`` makes it. Raises ``NameReserved`` where that is reserved."""
    slug = plain_slug(name)
    _refuse_reserved(slug, pointer)
    return slug


def plain_slug(name: str) -> str:
    """The slug of a name, reserved or not. The same for all normal forms and cases of a name; a slug is its own slug.

    The name is case-folded in NFKC, put into ASCII (python-slugify's frozen algorithm with text-unidecode, so that an
    upgrade cannot change a slug), and what is neither letter nor digit becomes a hyphen. More than 48 characters are
    cut after a word, followed by six characters of a hash of the whole; fewer than two ("X", "Ω", scripts without a
    transliteration) are followed by ten characters of a hash of the name's letters, digits and marks.
    Takes any text.
    """
    folded = _folded(name)
    slug = slugify(
        folded.translate(_DROPPED_IN_SLUG),
        entities=False,
        decimal=False,
        hexadecimal=False,
        backend="text-unidecode",
        algorithm="legacy",
    )
    if len(slug) < MIN_SLUG:
        letters = "".join(char for char in folded if char.isalnum() or _is_mark(char))
        return f"{slug or 'o'}-{_hash(letters or folded, 10)}"
    if len(slug) > MAX_SLUG:
        return f"{_cut(slug, MAX_SLUG - 7)}-{_hash(slug, 6)}"
    return slug


def checked_slug(text: str, *, pointer: str = "/slug") -> str:
    """The text, which is exactly a slug. Raises ``InvalidSlug`` where it is not, ``NameReserved`` where reserved."""
    if not _is_slug(text):
        raise InvalidSlug(problems=(Problem(pointer, InvalidSlug.code, InvalidSlug.title),))
    _refuse_reserved(text, pointer)
    return text


def numbered_slug(slug: str, number: int) -> str:
    """``acme`` and 2 give ``acme-2``: what to try when the plain slug is taken or reserved. At most 48 characters."""
    suffix = f"-{number}"
    return slug[: MAX_SLUG - len(suffix)].rstrip("-") + suffix


def is_reserved(slug: str) -> bool:
    """Whether the product keeps a slug for itself: ``reserved_names.txt``, and whatever could be an id's ULID.

    The latter would let a slug-named space be mistaken for the id-named space of another organization.
    """
    return slug in _reserved() or _ULID.fullmatch(slug) is not None


@cache
def _reserved() -> frozenset[str]:
    lines = resources.files("orgstead").joinpath("reserved_names.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _refuse_reserved(slug: str, pointer: str) -> None:
    if is_reserved(slug):
        raise NameReserved(problems=(Problem(pointer, NameReserved.code, NameReserved.title),))


def _is_slug(text: str) -> bool:
    return MIN_SLUG <= len(text) <= MAX_SLUG and _SLUG.fullmatch(text) is not None


def _folded(text: str) -> str:
    """NFKC case folding: equal for all that Unicode holds to be the same text (chapter 3, D146)."""
    if text.isascii():
        return text.lower()
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", once.casefold())


def _cut(slug: str, length: int) -> str:
    """The whole words that fit, or a part of the first one."""
    words = slug[: length + 1].rpartition("-")[0]
    return words or slug[:length]


def _hash(text: str, length: int) -> str:
    """Characters of ``a-z2-7`` that are the same on every machine, for ever."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return b32encode(digest).decode("ascii").lower()[:length]


# --- spaces ---------------------------------------------------------------------------------------------------------


def space_name(slug: str, org_id: str, naming: Naming) -> str:
    """The physical name of an organization's space: ``org_acme-labs``, or with ``naming="id"`` the id itself.

    Only ``[a-z0-9_-]``, at most 60 bytes. Raises ``ValueError`` for a slug or an id that could make anything else:
    nothing from outside gets this far unchecked.
    """
    if naming == "slug":
        if not _is_slug(slug):
            raise ValueError("not a slug")
        return f"org_{slug}"
    prefix, _, ulid = org_id.partition("_")
    if prefix != "org" or _ULID.fullmatch(ulid) is None:
        raise ValueError("not the id of an organization")
    return org_id
