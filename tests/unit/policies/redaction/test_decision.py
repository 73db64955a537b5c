"""The rules of `entity.py`, one by one: which match it is, what goes instead, and when."""

from __future__ import annotations

import pytest

from policies.redaction.automaton import MAX_UNSEEN
from policies.redaction.decision import VALIDATION_STEPS, Piece
from policies.redaction.entity import BudgetExceeded, Entity, dictionary
from policies.redaction.scanner import ALLOWANCE, Scanner


def marked(entity: Entity, text: str) -> str:
    return f"<{entity.name}:{text}>"


def redacted(text: str, *entities: Entity) -> str:
    return Scanner(entities).redact(text, marked)


def pieces(text: str, *entities: Entity) -> list[Piece]:
    redactor = Scanner(entities).redactor(marked)
    return redactor.scan(text) + redactor.end()


def test_the_leftmost_start_wins_over_a_longer_match_further_on() -> None:
    assert redacted("abcdef", Entity("LONG", "bcdef"), Entity("LEFT", "abc")) == "<LEFT:abc>def"


def test_at_one_start_the_longest_match_wins() -> None:
    assert redacted("abcd", Entity("SHORT", "ab"), Entity("LONG", "abc")) == "<LONG:abc>d"


def test_ties_go_to_the_first_in_the_list_also_if_one_of_them_waits_for_the_next_character() -> None:
    assert redacted("ab", Entity("ONE", "ab"), Entity("TWO", "ab")) == "<ONE:ab>"
    assert redacted("abx", Entity("ONE", "ab", after="y"), Entity("TWO", "ab")) == "<ONE:ab>x"
    assert redacted("abx", Entity("ONE", "ab"), Entity("TWO", "ab", after="y")) == "<ONE:ab>x"


def test_a_match_is_not_held_for_another_that_could_not_win() -> None:
    redactor = Scanner([Entity("ONE", "ab"), Entity("TWO", "[ab]{2}", after="y")]).redactor(marked)
    assert redactor.feed("ab") == "<ONE:ab>"


def test_the_search_goes_on_where_the_match_ended() -> None:
    assert redacted("aaaaa", Entity("TWO", "aa")) == "<TWO:aa><TWO:aa>a"


def test_a_match_that_overlaps_a_decided_one_is_none_but_one_that_begins_at_its_end_is() -> None:
    assert redacted("abcd", Entity("ONE", "ab"), Entity("TWO", "bc"), Entity("THREE", "cd")) == "<ONE:ab><THREE:cd>"


def test_an_end_that_is_not_valid_leaves_the_shorter_ones() -> None:
    even = Entity("EVEN", r"\d{1,9}", valid=lambda text: int(text) % 2 == 0)
    assert redacted("12345x", even) == "<EVEN:1234>5x"


def test_a_start_of_which_no_end_is_valid_leaves_the_starts_inside_it() -> None:
    nines = Entity("NINES", r"\d{2}", valid=lambda text: text == "99")
    assert redacted("8899", nines) == "88<NINES:99>"


def test_another_entity_may_match_where_a_longer_one_is_not_valid() -> None:
    assert redacted("abc", Entity("NEVER", "abc", valid=lambda text: False), Entity("ONE", "ab")) == "<ONE:ab>c"


def test_guards_look_at_one_character_on_either_side_and_at_matched_ones_too() -> None:
    guarded = Entity("ONE", "ab", before="[xb]", after="[yz]")
    assert redacted("ab", guarded) == "<ONE:ab>"
    assert redacted("xab", guarded) == "xab"
    assert redacted("aby", guarded) == "aby"
    assert redacted("yabx", guarded) == "y<ONE:ab>x"
    assert redacted("abab", guarded) == "<ONE:ab>ab"


def test_guards_and_validators_see_folded_characters() -> None:
    guarded = Entity("ONE", r"\d{2}", before="x", after="y", valid=lambda text: text == "12")
    assert redacted("\uff58\u200b12", guarded) == "\uff58\u200b12"
    assert redacted("12\u200b\uff59", guarded) == "12\u200b\uff59"
    assert redacted("\u0661\u200b\uff12", guarded) == "<ONE:\u0661\u200b\uff12>"


def test_invisible_characters_are_replaced_inside_a_match_and_stay_around_it() -> None:
    assert redacted("\u200ba\u200bb\u200bc", Entity("ONE", "ab")) == "\u200b<ONE:a\u200bb>\u200bc"


def test_context_goes_as_it_is() -> None:
    ssn = Entity("SSN", r"ssn:? \d{4}", context=lambda text: len(text) - 4)
    assert redacted("ssn: 1234", ssn) == "ssn: <SSN:1234>"
    assert redacted("s\u200bsn \u200b1234", ssn) == "s\u200bsn \u200b<SSN:1234>"


IP = Entity("IP", r"\d(?:\.\d){3}")


def test_a_decoy_stays_and_what_it_spares_is_not_found_in_it() -> None:
    decoy = Entity("VERSION", r"v1\.2\.3\.4", spares=("IP",))
    assert redacted("v1.2.3.4 1.2.3.4", decoy, IP) == "v1.2.3.4 <IP:1.2.3.4>"
    assert redacted("v\u200b1.2.3.4", decoy, IP) == "v\u200b1.2.3.4"


def test_what_a_decoy_does_not_spare_is_found_in_it_and_what_it_spares_still_is_not_behind_that() -> None:
    decoy = Entity("ROW", r"v1\.2\.3\.4 [a-z]{2} 5\.6\.7\.8", spares=("IP",))
    ordinary, committing = Entity("ONE", "v1"), Entity("TWO", "x", swallow="y?")
    assert redacted("v1.2.3.4 xy 5.6.7.8", decoy, IP, ordinary) == "<ONE:v1>.2.3.4 xy 5.6.7.8"
    assert redacted("v1.2.3.4 xy 5.6.7.8", decoy, IP, committing) == "v1.2.3.4 <TWO:x> 5.6.7.8"


def test_a_match_that_goes_further_than_a_decoy_is_found() -> None:
    decoy = Entity("SHORT", r"v\d\.\d", spares=("IP", "ALL"))
    assert redacted("v1.2.3.4", decoy, IP) == "v<IP:1.2.3.4>"
    assert redacted("v1.2.3.4", decoy, Entity("ALL", r"v\d(?:\.\d){1,3}")) == "<ALL:v1.2.3.4>"


def test_of_a_decoy_and_a_match_as_long_the_first_in_the_list_wins() -> None:
    decoy, entity = Entity("DECOY", "ab", spares=("ONE",)), Entity("ONE", "ab")
    assert redacted("ab", decoy, entity) == "ab"
    assert redacted("ab", entity, decoy) == "<ONE:ab>"


def test_a_decoy_that_is_not_valid_or_inside_a_match_spares_nothing() -> None:
    decoy = Entity("VERSION", r"v1\.2\.3\.4", spares=("IP",), valid=lambda text: False)
    assert redacted("v1.2.3.4", decoy, IP) == "v<IP:1.2.3.4>"
    assert redacted("xv1.2.3.4", decoy._replace(valid=None), Entity("X", "xv"), IP) == "<X:xv><IP:1.2.3.4>"


def test_a_decoy_may_begin_in_the_context() -> None:
    scanner = Scanner([Entity("VERSION", r'version": "\d(?:\.\d){3}', spares=("IP",)), IP])
    assert scanner.redact("1.2.3.4 1.2.3.4", marked, 'version": "') == "1.2.3.4 <IP:1.2.3.4>"


def test_what_commits_is_replaced_at_once_and_what_it_swallows_is_not_held() -> None:
    redactor = Scanner([Entity("KEY", "sk-[a-z]{3}", swallow="[a-z0-9]*")]).redactor(marked)
    assert [redactor.feed(character) for character in "xsk-abcdef123 y"] == [
        *["x", "", "", "", "", "", "<KEY:sk-abc>", "", "", "", "", "", "", " ", "y"]
    ]
    assert redactor.held == 0


def test_what_commits_goes_before_a_longer_match_at_the_same_start_and_the_smallest_end_first() -> None:
    long, head = Entity("LONG", "abcdef"), Entity("HEAD", "ab", swallow="c?")
    assert redacted("abcdef", long, Entity("LATER", "abc", swallow="d?"), head) == "<HEAD:ab>def"
    assert redacted("abcdef", Entity("FIRST", "ab", swallow="cd?"), head) == "<FIRST:ab>ef"


def test_what_commits_waits_for_an_older_start() -> None:
    older, head = Entity("OLD", "xabc"), Entity("HEAD", "ab", swallow="[a-z]*")
    assert redacted("xabcab", older, head) == "<OLD:xabc><HEAD:ab>"
    assert redacted("xabdab!", older, head) == "x<HEAD:ab>!"


def test_the_head_that_is_not_valid_does_not_commit() -> None:
    head = Entity("HEAD", r"\d{2,3}", valid=lambda text: len(text) == 3, swallow=r"\d*")
    assert redacted("12 12345", head) == "12 <HEAD:123>"


def test_what_is_swallowed_ends_where_it_last_matched_and_the_rest_is_searched_again() -> None:
    block = Entity("KEY", "BEGIN", swallow="[a-z]*(?:--END)?")
    assert redacted("BEGINabc--ENDabc", block) == "<KEY:BEGIN>abc"
    assert redacted("BEGINabc--EN, sk", block, Entity("DASHES", "--EN")) == "<KEY:BEGIN><DASHES:--EN>, sk"
    assert redacted("BEGINabc--EN", block) == "<KEY:BEGIN>--EN"
    assert redacted("BEGINabc\u200b-", block) == "<KEY:BEGIN>\u200b-"


def test_after_what_was_swallowed_guards_see_its_last_character() -> None:
    block, guarded = Entity("KEY", "B", swallow="[a-z]*"), Entity("ONE", "1", before="[x]")
    assert redacted("Bax1", block, guarded) == "<KEY:B>1"
    assert redacted("Bxa1", block, guarded) == "<KEY:B><ONE:1>"


def test_pieces_account_for_every_character() -> None:
    key = Entity("KEY", "sk-", swallow="[a-z]*")
    assert pieces("a sk-bcd e", key) == [(2, None), (3, "<KEY:sk->"), (3, ""), (2, None)]


def test_words_are_found_whole() -> None:
    names = dictionary("NAME", ["Ann", "Anna", "Mary Ann"])
    assert (
        redacted("anna, MARY ANN; joanna annas ann", names) == "<NAME:anna>, <NAME:MARY ANN>; joanna annas <NAME:ann>"
    )


def test_what_replace_raises_passes_through() -> None:
    def refuse(entity: Entity, text: str) -> str:
        raise LookupError(entity.name)

    with pytest.raises(LookupError, match="ONE"):
        Scanner([Entity("ONE", "a")]).redact("a", refuse)


def test_a_flood_of_invisible_characters_behind_an_end_is_refused() -> None:
    redactor = Scanner([Entity("ONE", "a(?:bc)?")]).redactor(marked)
    assert redactor.feed("a" + "\u200b" * MAX_UNSEEN) == ""
    with pytest.raises(BudgetExceeded, match="invisible"):
        redactor.feed("\u200b" * 9)


def test_calls_of_validators_are_paid_for() -> None:
    calls: list[str] = []

    def refused(text: str) -> bool:
        calls.append(text)
        return False

    costly = Entity("ONE", "[ab]{1,200}", valid=refused)
    redactor = Scanner([costly]).redactor(marked)
    with pytest.raises(BudgetExceeded):
        redactor.feed("ab" * 150 + "!")
    assert len(calls) <= 2 * ALLOWANCE // VALIDATION_STEPS
