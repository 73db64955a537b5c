import pytest
from multidict import CIMultiDict

from proxy.fields import add_vary, append, weights


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {}),
        (["gzip"], {"gzip": 1.0}),
        (["GZip , br;q=0.5", "zstd;Q=0.123"], {"gzip": 1.0, "br": 0.5, "zstd": 0.123}),
        (["gzip;q=0, *;q=0.0"], {"gzip": 0.0, "*": 0.0}),
        (["br ; q=1.000,, identity"], {"br": 1.0, "identity": 1.0}),
        (["br;q=0."], {"br": 0.0}),
    ],
)
def test_weights(values: list[str], expected: object) -> None:
    assert weights(values) == expected


@pytest.mark.parametrize(
    "value", ["br;q=2", "br;q=0.1234", "br;q=-1", "br;q=", "br;q=high", "br;level=9", "br gzip", ";q=1"]
)
def test_what_is_malformed_is_not_asked_for(value: object) -> None:
    assert weights([f"{value}, gzip"]) == {"gzip": 1.0}


@pytest.mark.parametrize(
    ("stated", "elements", "expected"),
    [
        ([], ["a"], "a"),
        (["a"], ["b", "c"], "a, b, c"),
        (["a, b", "", "c"], ["", "d"], "a, b, c, d"),
    ],
)
def test_a_list_is_one_field_in_the_end(stated: list[str], elements: list[str], expected: str) -> None:
    headers = CIMultiDict([("Via", value) for value in stated])
    append(headers, "via", *elements)
    assert headers.getall("Via") == [expected]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([], "Origin"),
        ([""], "Origin"),
        (["Accept-Encoding"], "Accept-Encoding, Origin"),
        (["Accept, Accept-Encoding", "Cookie"], "Accept, Accept-Encoding, Cookie, Origin"),
    ],
)
def test_vary_is_merged(stated: list[str], expected: object) -> None:
    headers = CIMultiDict([("Vary", value) for value in stated])
    add_vary(headers, "Origin")
    assert headers.getall("Vary") == [expected]


@pytest.mark.parametrize("stated", [["*"], ["origin"], ["Accept", "ORIGIN, Cookie"]])
def test_vary_that_says_it_already_stays(stated: list[str]) -> None:
    headers = CIMultiDict([("Vary", value) for value in stated])
    add_vary(headers, "Origin")
    assert headers.getall("Vary") == stated
