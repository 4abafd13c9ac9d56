"""Kaldi's specifier grammar."""

import pytest

from pipeline.errors import SpecifierError
from pipeline.tables import (
    Rspecifier,
    Wspecifier,
    is_specifier,
    parse_rspecifier,
    parse_wspecifier,
)
from pipeline.tables.specifiers import split_range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ark:a.ark", Rspecifier("ark", "a.ark")),
        ("ark:-", Rspecifier("ark", "-")),
        ("ark:", Rspecifier("ark", "")),
        ("scp:a:b.scp", Rspecifier("scp", "a:b.scp")),
        ("ark,s,cs:gunzip -c a.gz |", Rspecifier("ark", "gunzip -c a.gz |", False, True, True)),
        ("ark,bg,t,o,p:x", Rspecifier("ark", "x", once=True, permissive=True)),
        ("scp p:x", Rspecifier("scp", "x", permissive=True)),
        ("ark,s,ns,cs,ncs,p,np,o,no,b:x", Rspecifier("ark", "x")),
        ("p,ark:x", Rspecifier("ark", "x", permissive=True)),
    ],
)
def test_rspecifiers(text: str, expected: Rspecifier) -> None:
    assert parse_rspecifier(text) == expected
    assert is_specifier(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ark:a.ark", Wspecifier("a.ark", None)),
        ("ark,t:-", Wspecifier("-", None, text=True)),
        ("ark,t,b,f,p:| gzip > x", Wspecifier("| gzip > x", None, flush=True, permissive=True)),
        ("ark,scp,t:a.ark,b,c.scp", Wspecifier("a.ark", "b,c.scp", text=True)),
        ("ark,scp:a.ark,-", Wspecifier("a.ark", "-")),
        ("ark,f,nf,p,np:x", Wspecifier("x", None)),
    ],
)
def test_wspecifiers(text: str, expected: Wspecifier) -> None:
    assert parse_wspecifier(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a.ark", "has no colon; write for example ark:feats.ark"),
        ("ark:a.ark ", "begins or ends with a blank"),
        (" ark:a.ark", "begins or ends with a blank"),
        ("ark: a.ark", "begins or ends with a blank"),
        ("ark,x:a.ark", "unknown rspecifier option 'x'; choose from o, no, s"),
        ("ark,f:a.ark", "unknown rspecifier option 'f'"),
        ("t:a.ark", "either ark or scp, not none"),
        ("ark,scp:a,b", "either ark or scp, not ark and scp"),
        ("ark:| cat", "must end with |, not begin with it"),
        ("ark:|", "must end with |, not begin with it"),
        ("ark:a | b", "has a | inside"),
    ],
)
def test_wrong_rspecifiers(text: str, why: str) -> None:
    with pytest.raises(SpecifierError) as error:
        parse_rspecifier(text)
    assert why in str(error.value)
    assert text in str(error.value) or text.partition(":")[2] in str(error.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("scp,ark:a.scp,a.ark", "in this order"),
        ("ark,ark:a", "in this order"),
        ("ark,scp:a.ark", "needs two names"),
        ("ark,scp:,a.scp", "needs two names"),
        ("ark,scp:a,a", "different names"),
        ("ark,scp:-,a.scp", "only refer to a file"),
        ("ark,scp:| cat,a.scp", "only refer to a file"),
        ("ark,s:a.ark", "unknown wspecifier option 's'; choose from b, t, f"),
        ("ark:a.ark:12", "writing at an offset is impossible"),
        ("ark:cat |", "must begin with |"),
        ("ark:|", "must begin with |, not end with it"),
        ("ark:a|b", "has a | inside"),
        ("", "has no colon"),
    ],
)
def test_wrong_wspecifiers(text: str, why: str) -> None:
    with pytest.raises(SpecifierError) as error:
        parse_wspecifier(text)
    assert why in str(error.value)


@pytest.mark.parametrize("text", ["a.ark", "a.ark:12", "-", "dir/ark:12", "cat a.ark |", "t:x"])
def test_file_names_are_no_specifiers(text: str) -> None:
    assert not is_specifier(text)


@pytest.mark.parametrize(
    "text", ["a[]", "a[1]", "a[3:2]", "a[1:2,3]", "a[1:2,3:4,5:6]", "a[-1:2]", "[1:2]", "a[x:y]"]
)
def test_wrong_ranges(text: str) -> None:
    with pytest.raises(SpecifierError):
        split_range(text)
