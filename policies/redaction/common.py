"""What a scanner is warmed with: a bit of all that models write, so that the first streams find the automaton built."""

# ruff: noqa: RUF001

from __future__ import annotations

_TEXT = """
Of course! Here are three things to keep in mind, and why each of them matters more than most people would think:

1. **Quality**: It's better to do a few things well than many badly, isn't it? "Just enough" (say, 20%) is often too much.
2. **Zoning**: You would need 15,000 people, 3-4 years and $2.5 million; the law of 17 June 1953 took 36 months to pass.
   - For example: `value = json.loads(text)["key"][0]` gives 42; see https://www.example.com/a/b-c_d.html?x=1&y=2#top.

```python
def quick_sort(items: list[int], *, reverse: bool = False) -> list[int]:  # O(n log n), v1.2.3
    return sorted(items, key=lambda x: -x / 2 + 0.75) if items != [] else {"a": 1e-9, 'b': None, "XYZ": 0xFF}
```

The quick brown fox jumps over the lazy dog, while extraordinary circumstances, however, involve knowledge, government,
jurisdiction, photosynthesis, Wednesday, Queen Victoria, Zürich, São Paulo and the United Kingdom's own view of history.
Write to john.smith@example.com or call +1 (212) 555-0123 / 020 7946 0958; the server 192.168.0.1 (2001:db8::8a2e:370:7334)
took card 4111 1111 1111 1111, account GB82 WEST 1234 5698 7654 32 and number 123-45-6789 at 12:30:59 on 2024-01-31.
He said: “Yes — it’s fine”… 0 1 2 3 4 5 6 7 8 9 A B C D E F G H I J K L M N O P Q R S T U V W X Y Z
"""

_WORDS = """
the be to of and a in that have it for not on with he as you do at this but his by from they we say her she or an will
my one all would there their what so up out if about who get which go me when make can like time no just him know take
people into year your good some could them see other than then now look only come its over think also back after use
two how our work first well way even new want because any these give day most us is are was were been being has had
having does did doing said made going where why much many very more less each few both own same such too should may
might must shall every never always often again still here before between under while during without within through
around against among across along although though however therefore since until unless whether either neither another
several enough almost already perhaps maybe actually really quite rather simply usually generally typically especially
particularly important different possible following example number part place point world life hand week company
system program question government right left small large great high long little old young next early public last
certain able away something anything nothing everything someone everyone anyone information change process result
reason level include including provide consider understand create develop require allow follow begin seem help show
turn start call move live believe hold bring happen write sit stand lose pay meet learn lead watch stop speak read
spend grow open walk offer remember love appear buy wait serve die send expect build stay fall cut reach kill remain
suggest raise pass sell decide return explain hope carry break receive agree support hit produce eat cover catch draw
choose cause thing things man woman child children school state family student group country problem case study book
water food house room mother father area money story fact month lot night city community name president team minute
idea body parent face others door health person art war history party morning street teacher force education foot boy
girl age policy music market sense service nature value energy data model language code function method class object
variable list string text file line user input output type error test version server client request response network
memory image message page table column field key step steps second third finally overall summary conclusion note below
above recommend best practice common approach specific details context issue solution effect effects temperature
pressure science research theory experiment evidence analysis century empire king queen north south east west European
American British French German Chinese January February March April May June July August September October November
December Monday Tuesday Wednesday Thursday Friday Saturday Sunday I'm I'd I've you're it's that's let's don't doesn't
didn't can't won't isn't aren't wasn't couldn't wouldn't shouldn't there's here's what's they're we're
"""

_QUOTED = "".join(
    f' "{first} {second} and {third}" ({second}-{first}!)'
    for first, second, third in zip(*[iter(_WORDS.split())] * 3, strict=False)
)

COMMON = _TEXT + _WORDS + _WORDS.title() + ", ".join(_WORDS.split()) + ". ".join(_WORDS.split()) + _QUOTED
