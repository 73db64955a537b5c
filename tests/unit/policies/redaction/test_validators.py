"""The validators: checksums, ranges and shapes, each at its edges."""

from __future__ import annotations

import pytest

from policies.redaction import validators
from policies.redaction.validators import Validator

YES: dict[Validator, tuple[str, ...]] = {
    validators.luhn: ("79927398713", "0", "18", "4111111111111111"),
    validators.card: (
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111\n1111",
        "4111\n1111\n1111\n1111",
        "4111 - 1111 - 1111 - 1111",
        "4111  1111  1111  1111",
        "4222222222222",  # Visa with 13
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "2223003122003222",
        "6205500000000000004",  # 19
        "6205 5000 0000 0000 004",
        "6759649826438453",
        "9792030394440796",
    ),
    validators.iban: (
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "gb82 west 1234 5698 7654 32",
        "MT84MALT011000012345MTLCAST001S",
        "BE68539007547034",
        "NO9386011117947",
        "IBANDE89370400440532013000",
    ),
    validators.us_ssn: ("123-45-6789", "001 01 0001", "899.99.9999", "123456789", "665-12-3456", "667-12-3456"),
    validators.named_us_ssn: ("ssn: 123456789", "Social Security Number is 123-45-6789"),
    validators.email: (
        "a@b.co",
        "bob@EXAMPLE.COM",
        "bob@xn--bcher-kva.example",
        "иван@пpимep.pф",  # as it is folded
        "用户@例子.中国",
        "bob%40example.com",
        "bob[at]example[dot]com",
        "bob@host.internal",
        "bob@a--b.de",
    ),
    validators.ipv4: ("0.0.0.0", "255.255.255.255", "010.001.002.003", "192[.]168[.]1[.]1"),
    validators.ipv6: (
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "2001:db8::1",
        "fe80::1%eth0",
        "::ffff:192.0.2.128",
        "::1",
        "1:2:3:4:5:6:7:8",
        "2001:db8::",
        "dead:beef::1",
    ),
    validators.url_credentials: (
        "https://user:pass@",
        "redis://:secret@",
        "https://ghp16C7e42F292c6912E7@",
        r"https:\/\/u:p@",
        "db://u:p@ss@",
    ),
    validators.varied: ("abcdef", "ghp_" + "a1b2c3d4e5f6g7h8"),
    validators.varied_with_digits: ("EAABsbCS1iHgBAMZC0abcdef",),
    validators.random_looking: ("a8f3k2m9x7q1", "vpzz7Tu9e8SMCFbOUdz9rP4U"),
    validators.aws_secret: ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "GyRCMnE8VCROPjVHJyRyQlQkQyRGJCQkXiQ5GyhC"),
    validators.basic_credentials: ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "basic dTpw"),
    validators.assigned_secret: (
        "api_key = a94a8fe5ccb19ba61c4c",
        'token: "x8Kd02mQpL7vR3nT5wY1"',
        "X-API-Key: 8vC8SMSymrBN3HxuvY",
        "token=VvxlD28lafhvpjtNpwGDbevht2ARMDhC",  # few digits, long runs: as one in thirty is
        "key: 2jx5rf7thq4krqve5jfpgqpt4bdm2oxvjdwfxpldijyjxyqaioco",
    ),
    validators.assigned_password: (
        "password=hunter2",
        "password: hunter2",
        'password = "hunter2',
        "password>c0pper",
        "password is Summer2024",
        "password is b@ttery-Staple",
        "password copper-8m!07",
        "PASSWORD 'c0pper",
        "requirepass 2mhzH2DIDDRgub",
        "Password=GNKgegzwCEauQshiqT",
        "password=copper-staple-26",
        "password: c0pper.",
    ),
    validators.assigned_mixture: ('api_key: "5yZ6HxAS#y2SikHSE', "KEY=c0pper-b@ttery!52", "key = c0pper-b@ttery"),
    validators.argument_secret: ("-u app:c0pper$battery", "-p 7f3a9c51e2b84d60a1c5f7e9d3b20846", "-p'b@ttery-St4ple"),
}
NO: dict[Validator, tuple[str, ...]] = {
    validators.luhn: ("79927398710", "1", "4111111111111112"),
    validators.card: (
        "4111111111111112",  # the check digit
        "1234567812345670",  # of no issuer
        "0000000000000000",
        "490154203237518",  # an IMEI
        "4006381333931",  # an EAN that the Luhn check refuses
        "41 11 11 11 11 11 11 11",  # nobody writes it so
        "2692\n2693\n2702\n2703",  # a list of numbers
        "79927398713",
    ),
    validators.iban: ("DE88370400440532013000", "DE8937040044053201300", "ZZ89370400440532013000", ""),
    validators.us_ssn: (
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "123-45 6789",
    ),
    validators.named_us_ssn: ("ssn: 000123456",),
    validators.email: (
        "q@k.transpose",
        "bob@example",
        "bob@-a.com",
        "bob@a-.com",
        "bob@a..com",
        "bob.@example.com",
        "a" * 65 + "@b.com",
        "bob@" + "a" * 64 + ".com",
    ),
    validators.ipv4: ("256.1.1.1", "1.2.3.999"),
    validators.ipv6: (
        "1:2:3",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        ":::",
        "::",
        "1:2:3:4:5:6:7::8",
        "::2",
        "10::20",
        "Face::Add",
        "500:500::",
        "00:11:22:33:44:55:66:77",
        "::ffff:192.0.2.256",
        "fe80::1%",
        ":1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:",
    ),
    validators.url_credentials: (
        "https://user:${PASS}@",
        "https://<user>:<password>@",
        "https://user:****@",
        "https://some-very-long-username@",
        "https://user:@",
    ),
    validators.varied: ("xxxxxxxxxxxxxxxx", "ghp_xxxxxxxxxxxxxxxxxxxx"),
    validators.varied_with_digits: ("EAAccessLayerImplementation", "EAA11111111111111111111"),
    validators.random_looking: ("abcdefghijklmnop", "1234567890123456", "understanding1of2things"),
    validators.aws_secret: (
        "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3",  # SHA-1
        "src/main/java/com/example/App/Foo2Bar/Qx",
        "llvm/CodeGen/GlobalISel/MachineIRBuilder",
        "AbstractSingletonProxyFactoryBean12345678"[:40],
        "MY_VERY_LONG_CONSTANT_NAME_FOR_TESTING_1",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ),
    validators.basic_credentials: ("basic understanding", "Basic dXNlcg==", "Basic /////w=="),
    validators.assigned_secret: (
        "token = settings.get_token_from_environment",
        "secret: xxxxxxxxxxxxxxxxxxxxxxxx",
        "password abcdefghijklmnopqrstuvwxyz",
        "PublicKeyToken=b77a5c561934e089",
        "token = GenerateAccessTokenV2ForUser",
        "token: TOK_STREAM_HOP1_B64",
        "PrivateKey = rust_openssl.hpke.MLKEM1024P384PrivateKey",
        "token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...",
    ),
    validators.assigned_password: (
        "password = hunter2",  # a name
        "password = get2(user)",
        "password: Uint8Array",
        "password=sha256",
        "password=changeme1",
        "password=your-password1",
        "password=$DB_PASS1",
        "password: required",
        "password=11111111",
        "pass `type_comments=True",
        "password manager2go",
        "password=MyDatabasePassword",
    ),
    validators.assigned_mixture: (
        "api_key = first.key2",
        "token: a1!b2",
        "key=get(a1!bcdefghi)",
        "token is c0pper-b@ttery",
    ),
    validators.argument_secret: (
        "-u 1000:100000000",
        "-u user:$PASSWORD123456789",
        "-p directory/of/things",
        "-p 2222",
    ),
}


def _cases(table: dict[Validator, tuple[str, ...]]) -> list[pytest.param]:
    return [
        pytest.param(validator, text, id=f"{validator.__name__}-{text[:40]!r}")
        for validator, texts in table.items()
        for text in texts
    ]


@pytest.mark.parametrize(("validator", "text"), _cases(YES))
def test_valid(validator: Validator, text: str) -> None:
    assert validator(text)


@pytest.mark.parametrize(("validator", "text"), _cases(NO))
def test_not_valid(validator: Validator, text: str) -> None:
    assert not validator(text)


@pytest.mark.parametrize("country", sorted(validators.IBAN_LENGTHS))
def test_each_country_has_its_length(country: str) -> None:
    length = validators.IBAN_LENGTHS[country]
    body = "0" * (length - 4)
    digits = "".join(str(int(character, 36)) for character in f"{body}{country}00")
    number = f"{country}{98 - int(digits) % 97:02}{body}"
    assert validators.iban(number)
    assert not validators.iban(number + "0")


@pytest.mark.parametrize(
    ("count", "text", "context"),
    [
        (validators.scheme, "postgres://u:p@", "postgres://"),
        (validators.words_before_digits, "ssn is 123456789", "ssn is "),
        (validators.words_before_digits, "call me (212) 555-0123", "call me "),
        (validators.assignment, 'api_key": "abc', 'api_key": "'),
        (validators.assignment, "AccountKey=ab==", "AccountKey="),
        (validators.assignment, "Bearer abc", "Bearer "),
        (validators.assignment, "secret is abc", "secret is "),
        (validators.assignment, '"key" value="abc', '"key" value="'),
        (validators.assignment, "mot de passe : abc", "mot de passe : "),
        (validators.assignment, "<password>abc", "<password>"),
        (validators.assignment, "密码:abc", "密码:"),
        (validators.argument, "-u name:abc", "-u name:"),
        (validators.argument, "-pabc", "-p"),
        (validators.query, "a=1&email=bob@example.com", "a=1&email="),
        (validators.query, "a=1&bob@example.com", "a=1&"),
        (validators.query, "email=a&b@example.com", "email="),
        (validators.query, "bounce=bob@example.com", ""),
        (validators.query, "a&b@example.com", ""),
    ],
)
def test_what_gives_a_secret_away_is_told_from_it(count: object, text: str, context: str) -> None:
    assert callable(count)
    assert text[: count(text)] == context
