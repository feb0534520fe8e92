"""Names and slugs: hostile input (threats of group A), properties over any text, and names of the real world."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from orgstead.errors import InvalidName, InvalidSlug, NameReserved
from orgstead.kit import new_id
from orgstead.names import (
    MAX_NAME_BYTES,
    MAX_NAME_GRAPHEMES,
    MAX_SLUG,
    Naming,
    checked_name,
    checked_slug,
    cleaned_name,
    derived_slug,
    is_reserved,
    numbered_slug,
    plain_slug,
    same_name,
    space_name,
)

SLUG = re.compile(r"(?=.{2,48}\Z)[a-z0-9]+(-[a-z0-9]+)*")

anything = st.text(st.characters(), max_size=60)
"""Any code points, lone surrogates and unassigned ones too."""

awkward = st.text(
    st.sampled_from("aZ09 -_.'&%®ÅßİıſµΩΩKﬁⅧ℀日本é\u0301\u0327\u00a0\u2002\u3000\t\u200b\u00ad\ufe0fАсԱ\ud800"),
    max_size=60,
)


def names_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as lines:
        return [row["name"] for row in csv.DictReader(lines)]


# --- what is a name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Acme", "Acme"),
        (" x ", "x"),
        ("\u00a0Acme \u2002 \u3000Corp\u2009", "Acme Corp"),
        ("e\u0301lan", "élan"),
        ("\u212aiwi", "Kiwi"),
        ("日本電気", "日本電気"),
        ("шоколад", "шоколад"),
        ("Ω", "Ω"),
        ("10 k\u2126 \u00b5Tech", "10 kΩ \u00b5Tech"),
        ("Google Россия", "Google Россия"),
        ("ABC株式会社", "ABC株式会社"),
        ("Ⅷ", "Ⅷ"),
        ("℀", "℀"),
        ("Việt Nam", "Việt Nam"),
        ("Rock 🎸 Gear 👍🏽", "Rock 🎸 Gear 👍🏽"),
        ("100% Pure", "100% Pure"),
    ],
)
def test_a_name_is_normalized_and_otherwise_left_alone(text: str, name: str) -> None:
    assert checked_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        '"; DROP TABLE orgs;--',
        "' OR '1'='1",
        "{{7*7}}",
        "<script>alert(1)</script>",
        "=HYPERLINK(1)",
        "a$b",
        "a.b",
        "${jndi:ldap://x}",
    ],
)
def test_text_that_is_code_elsewhere_is_only_text(text: str) -> None:
    assert checked_name(text) == text
    assert SLUG.fullmatch(derived_slug(text))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("\u00a0\u3000", "empty"),
        ("a\u0000b", "control"),
        ("a\tb", "control"),
        ("Acme\n", "control"),
        ("a\u0085b", "control"),
        ("a\u2028b", "control"),
        ("a\x7fb", "control"),
        ("Acme\u200bCorp", "invisible"),
        ("Acme\u200dCorp", "invisible"),
        ("Acme\u00adCorp", "invisible"),
        ("Acme\u2060Corp", "invisible"),
        ("Acme\ufe0fCorp", "invisible"),
        ("Acme\U000e0101Corp", "invisible"),
        ("Acme\U000e0041Corp", "invisible"),
        ("Acme\u034fCorp", "invisible"),
        ("Acme\u115fCorp", "invisible"),
        ("Acme\u3164Corp", "invisible"),
        ("Acme\u2800Corp", "invisible"),
        ("\ufeffAcme", "invisible"),
        ("Acme\u202egro", "invisible"),
        ("Acme\u2066gro", "invisible"),
        ("Acme\u200f", "invisible"),
        ("\ud800", "not an assigned"),
        ("a\udfffb", "not an assigned"),
        ("a\ue000b", "not an assigned"),
        ("a\U000f0000b", "not an assigned"),
        ("a\uffffb", "not an assigned"),
        ("a\ufdd0b", "not an assigned"),
        ("a\u0378b", "not an assigned"),
        ("!!!", "no letter"),
        ("..", "no letter"),
        ("/", "no letter"),
        ("%2e%2e%2f", "no letter"),
        ("%252e%252E%252f", "no letter"),
        ("🎉🎉", "no letter"),
        ("\u0301", "stand on"),
        ("a \u0301b", "stand on"),
        ("a\u0301\u0302\u0303\u0304\u0305\u0306", "marks on it"),
        ("\u0410cme", "alike"),
        ("\u0410\u0301cme", "alike"),
        ("Acm\u0435 Corp", "alike"),
        ("Go\u03bfgle", "alike"),
        ("Αлфа", "alike"),
        ("\u054fesla", "alike"),
        ("\u13a0cme", "alike"),
        ("\u0410\uff43me", "alike"),
        ("\ua4d0ing", "alike"),
    ],
)
def test_what_is_no_name_is_refused_with_its_place(text: str, word: str) -> None:
    with pytest.raises(InvalidName) as refusal:
        checked_name(text, pointer="/organization_name")
    assert word in refusal.value.detail
    assert [(problem.pointer, problem.code) for problem in refusal.value.problems] == [
        ("/organization_name", "organization.name_invalid")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a" * MAX_NAME_GRAPHEMES,
        "e\u0301" * 127 + "e",
        "日" * (MAX_NAME_BYTES // 3),
        "Ab" * 64 + " " * 500,
        "x\u030c" * 85,
        "a" * (MAX_NAME_GRAPHEMES - 1) + "👍🏽",
    ],
)
def test_a_name_may_reach_either_limit(text: str) -> None:
    assert checked_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * (MAX_NAME_GRAPHEMES + 1),
        "e\u0301" * (MAX_NAME_GRAPHEMES + 1),
        "日" * (MAX_NAME_BYTES // 3 + 1),
        ("a" + "\u0325\u0310") * 52,
        "a" * 255,
        "a" * 256,
        "a" + "\u0301" * 200,
        "a" * 10_000_000,
        "\u0301\u0327" * 500_000,
    ],
    ids=lambda text: f"{len(text)} of {text[:2]!a}",
)
def test_a_name_beyond_either_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="too long"):
        checked_name(text)


def test_a_tower_of_marks_is_refused_within_the_limits_of_length() -> None:
    with pytest.raises(InvalidName, match="marks on it"):
        checked_name("Z" + "\u0315\u031b\u0321\u0322\u0327\u0328" * 8 + "algo")


# --- what people meant ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Acme,\tInc\t", "Acme, Inc"),
        ("Acme\r\nCorp", "Acme Corp"),
        ("\u200bAsung\u00a0\u2002Techno\ufeff", "Asung Techno"),
        ("Ac\u00adme\u0000", "Acme"),
        ("❤\ufe0f Labs", "❤ Labs"),
    ],
)
def test_import_keeps_what_was_meant(text: str, name: str) -> None:
    assert cleaned_name(text) == name


@pytest.mark.parametrize("text", ["\t\u200b\n", "!!!", "\u0410cme", "a\ud800", "a" * 2000])
def test_import_still_refuses_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName):
        cleaned_name(text)


# --- slugs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spellings",
    [
        (
            "acme-corp",
            "Acme Corp",
            "acme corp",
            "acme_corp",
            "acme.corp",
            "acme  corp",
            "ACME® Corp.",
            "Ａｃｍｅ Ｃｏｒｐ",
        ),
        ("kiwi", "\u212aiwi", "KIWI"),
        ("fin", "ﬁn", "FIN"),
        ("strasse", "Straße", "STRASSE", "STRAẞE"),
        ("viii", "Ⅷ", "VIII"),
        ("a-c", "℀", "A/C"),
        ("elan", "\u00e9lan", "e\u0301lan", "ÉLAN"),
        ("istanbul", "İstanbul", "ıstanbul", "ISTANBUL"),
        ("angstrom", "\u212bngström", "Ångström"),
        ("mtech", "\u00b5Tech", "\u03bcTech"),
        ("obrien", "O'Brien", "O’Brien", "O＇Brien"),
        ("at-t", "AT&T", "at&t"),
        ("acme-bold", "𝐀𝐜𝐦𝐞 bold"),
        ("hang-zhou", "杭州"),
        ("a-lt-b", "a&lt;b"),
    ],
    ids=lambda spellings: spellings[0],
)
def test_spellings_of_one_name_have_one_slug(spellings: tuple[str, ...]) -> None:
    assert {derived_slug(checked_name(text)) for text in spellings} == {spellings[0]}


def test_the_slug_tells_an_alphabet_from_its_look_alike() -> None:
    assert derived_slug("\u0410\u0421\u041c\u0415") == "asme"
    assert derived_slug("ACME") == "acme"


def test_names_too_short_for_a_slug_get_one_of_their_own() -> None:
    names = ["Ω", "O", "𠮷", "\U0001e900", "X", "9", "\U0001e900\U0001e944"]
    slugs = [derived_slug(checked_name(name)) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(SLUG.fullmatch(slug) for slug in slugs)
    assert slugs[0].startswith("o-")
    assert slugs[4].startswith("x-")
    assert derived_slug("x") == derived_slug("X.") == derived_slug("🅇") == slugs[4]
    assert derived_slug("𝛀") == slugs[0]
    assert slugs[4] == "x-fvyrmqvxe2"  # it is stored: the same for ever


def test_a_long_slug_is_cut_after_a_word_and_stays_its_own() -> None:
    first = derived_slug("Aglaia Gesellschaft fuer Bildverarbeitung und Kommunikation mbH")
    second = derived_slug("Aglaia Gesellschaft fuer Bildverarbeitung und Kommunikation AG")
    head = "aglaia-gesellschaft-fuer-bildverarbeitung"
    assert re.fullmatch(rf"{head}-[a-z2-7]{{6}}", first)
    assert re.fullmatch(rf"{head}-[a-z2-7]{{6}}", second)
    assert first != second
    assert len(first) == MAX_SLUG
    assert derived_slug("a" * 60).startswith("a" * 41 + "-")
    assert derived_slug("b" * 48) == "b" * 48


@pytest.mark.parametrize("text", ["ab", "a-b", "0-9", "acme-labs-2", "a" * 48])
def test_an_exact_slug_is_accepted(text: str) -> None:
    assert checked_slug(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "-ab",
        "ab-",
        "a--b",
        "Ab",
        "a b",
        "a_b",
        "a.b",
        "ab\n",
        "аb",
        "é-e",
        "a" * 49,
        "٣٤",
        "..",
        "a/b",
        "a\0b",
    ],
)
def test_anything_else_is_no_slug(text: str) -> None:
    with pytest.raises(InvalidSlug) as refusal:
        checked_slug(text)
    assert refusal.value.problems[0].pointer == "/slug"


@pytest.mark.parametrize(
    ("slug", "number", "expected"),
    [
        ("acme", 2, "acme-2"),
        ("a" * 48, 2, "a" * 46 + "-2"),
        ("a" * 45 + "-bc", 2, "a" * 45 + "-2"),
        ("a" * 48, 12345, "a" * 42 + "-12345"),
    ],
)
def test_a_numbered_slug_stays_a_slug(slug: str, number: int, expected: str) -> None:
    assert numbered_slug(slug, number) == expected
    assert SLUG.fullmatch(expected)


# --- reserved -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["system", "system.users", "oplog.rs", "$cmd", "api", "WWW", "Login", "null", "Undefined", "me", "new", "/docs/",
     "ａｐｉ", "Pg Catalog", "Orgstead", "01jd8zq5h3v4x6w7y8z9a0b1c2"],
)  # fmt: skip
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(NameReserved) as refusal:
        derived_slug(checked_name(name), pointer="/organization_name")
    assert refusal.value.problems[0].pointer == "/organization_name"
    with pytest.raises(NameReserved):
        checked_slug(plain_slug(name))


def test_a_reserved_name_can_be_numbered() -> None:
    slug = numbered_slug(plain_slug("GIT"), 2)
    assert slug == "git-2"
    assert checked_slug(slug) == slug


def test_every_reserved_word_is_a_slug_and_stands_once() -> None:
    path = Path(__file__).parents[2] / "src" / "orgstead" / "reserved_names.txt"
    words = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert len(words) > 200
    assert len(set(words)) == len(words)
    assert all(SLUG.fullmatch(word) and is_reserved(word) for word in words)


def test_ordinary_names_are_not_reserved() -> None:
    assert not any(is_reserved(slug) for slug in ("acme", "system-industrie-electronic-gmbh", "apis", "api-2"))


# --- spaces ---------------------------------------------------------------------------------------------------------


def test_a_space_is_named_by_slug_or_by_id() -> None:
    org_id = new_id("org")
    assert space_name("acme-labs", org_id, "slug") == "org_acme-labs"
    assert space_name("acme-labs", org_id, "id") == org_id
    assert len(space_name("a" * 48, org_id, "slug").encode()) <= 60


@pytest.mark.parametrize(
    ("slug", "org_id", "naming"),
    [
        ("a" * 49, "", "slug"),
        ("Acme", "", "slug"),
        ("a_b", "", "slug"),
        ("", "", "slug"),
        ("acme\n", "", "slug"),
        ("acme", "", "id"),
        ("acme", "usr_01jd8zq5h3v4x6w7y8z9a0b1c2", "id"),
        ("acme", "org_01JD8ZQ5H3V4X6W7Y8Z9A0B1C2", "id"),
        ("acme", "org_01jd8zq5h3v4x6w7y8z9a0b1c2\n", "id"),
        ("acme", "org_../../etc/passwd", "id"),
    ],
)
def test_no_space_is_named_by_anything_else(slug: str, org_id: str, naming: Naming) -> None:
    with pytest.raises(ValueError, match="not"):
        space_name(slug, org_id, naming)


# --- matching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["Élan Straße", "élan straße", "ÉLAN STRASSE", "E\u0301lan\u00a0Straße ", "elan-strasse", "ELAN-Strasse"]
)
def test_an_organization_answers_to_its_name_and_slug(text: str) -> None:
    assert same_name(text, name="Élan Straße", slug="elan-strasse")


@pytest.mark.parametrize(
    "text", ["", "Elan Strasse", "elan", "elan-strasse.", "elan-strasse\0", "%65lan-strasse", "\ud800", "a" * 10**6]
)
def test_and_to_nothing_else(text: str) -> None:
    assert not same_name(text, name="Élan Straße", slug="elan-strasse")


@given(anything | awkward)
def test_matching_never_raises(text: str) -> None:
    assert not same_name(text + "#", name="Acme", slug="acme")


# --- any text -------------------------------------------------------------------------------------------------------


@given(anything | awkward)
@example("ŉ")
@example("\u0345a")
@example("Ⅷ" * 40)
@example("ﷺ" * 40)
def test_any_text_is_refused_or_a_name_with_a_slug(text: str) -> None:
    try:
        name = checked_name(text)
        slug = derived_slug(name)
    except (InvalidName, NameReserved):
        return
    assert checked_name(name) == name == cleaned_name(name)
    assert unicodedata.is_normalized("NFC", name)
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert checked_slug(slug) == slug
    assert derived_slug(slug) == slug
    assert same_name(name, name=name, slug=slug)
    assert same_name(slug, name=name, slug=slug)


@given(anything | awkward)
def test_any_text_cleans_to_a_name_or_is_refused(text: str) -> None:
    try:
        name = cleaned_name(text)
    except InvalidName:
        return
    assert checked_name(name) == name


@given(anything | awkward)
@example("")
@example("\ud800")
def test_any_text_has_a_slug_that_is_its_own_slug(text: str) -> None:
    slug = plain_slug(text)
    assert SLUG.fullmatch(slug)
    assert plain_slug(slug) == slug


@given(anything | awkward)
@example("\u0345\u0301a")
@example("ΰ")
def test_the_slug_is_the_same_for_every_normal_form_and_case(text: str) -> None:
    slugs = {plain_slug(unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert slugs == {plain_slug(text)} == {plain_slug(text.casefold())}


@given(st.text("abcdefgh ", min_size=60, max_size=90), st.text("abcdefgh ", min_size=60, max_size=90))
def test_different_long_names_have_different_slugs(first: str, second: str) -> None:
    assume(first.split() != second.split())
    assume(first.strip() and second.strip())
    assert plain_slug(first) != plain_slug(second)


@given(anything.map(plain_slug), st.integers(min_value=2, max_value=10**9))
def test_any_slug_can_be_numbered(slug: str, number: int) -> None:
    numbered = numbered_slug(slug, number)
    assert SLUG.fullmatch(numbered)
    assert numbered.endswith(f"-{number}")


# --- names of the real world ----------------------------------------------------------------------------------------


def assert_that_all_can_be_imported(names: list[str]) -> None:
    """Every name is one after cleaning, and numbering gives each a slug of its own."""
    taken: set[str] = set()
    for text in names:
        name = cleaned_name(text)
        assert checked_name(name) == name
        slug, number = plain_slug(name), 1
        while slug in taken or is_reserved(slug):
            number += 1
            slug = numbered_slug(plain_slug(name), number)
        assert checked_slug(slug) == slug
        taken.add(slug)
    assert len(taken) == len(names)


def test_the_hardest_real_names_can_be_imported() -> None:
    assert_that_all_can_be_imported(names_of(Path(__file__).parents[1] / "data" / "hard_names.csv"))


def test_the_sample_holds_every_class_of_hard_name() -> None:
    names = names_of(Path(__file__).parents[1] / "data" / "hard_names.csv")
    together = "".join(names)
    for char in "\t\u00a0\u2002\u200b，（–—®’İµß\u0303\u0308é杭":
        assert char in together, ascii(char)
    assert any(name != name.strip() for name in names)
    assert any("  " in name for name in names)
    slugs = [plain_slug(cleaned_name(name)) for name in names]
    assert any(is_reserved(slug) for slug in slugs)
    groups = defaultdict(set)
    for slug, name in zip(slugs, names, strict=True):
        groups[slug].add(name)
    assert sum(len(group) > 1 for group in groups.values()) >= 10
    assert sum(len(slug) > 40 for slug in slugs) >= 20


def test_all_real_names_can_be_imported(real_data: Path) -> None:
    assert_that_all_can_be_imported(names_of(real_data / "organizations.csv"))
