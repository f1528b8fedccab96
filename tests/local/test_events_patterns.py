"""The event pattern grammar and matcher, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from local.events.patterns import InvalidPatternError, matches, parse, validate

EVENT: dict[str, Any] = {
    "source": "aws.s3",
    "account": "123456789012",
    "resources": ["arn:aws:s3:::one", "arn:aws:s3:::two"],
    "detail": {
        "key": "ground-truth/inbox/part-0.JSONL",
        "size": 5,
        "ratio": 3.0,
        "flag": True,
        "nothing": None,
        "empty": "",
        "none-of-them": [],
        "ip": "10.0.0.7",
        "ip6": "2001:db8::ff",
        "nested": {"deep": [[1, 2], [3]]},
        "items": [{"id": "a", "n": 1}, {"id": "b", "n": 2, "only": True}],
        "path": "a*b\\c",
    },
}

CASES: list[tuple[Any, bool]] = [
    # exact
    ({"source": ["aws.s3"]}, True),
    ({"source": ["aws.ec2", "aws.s3"]}, True),
    ({"source": ["AWS.S3"]}, False),
    ({"detail": {"size": [5]}}, True),
    ({"detail": {"size": [5.0]}}, True),
    ({"detail": {"size": ["5"]}}, False),
    ({"account": [123456789012]}, False),
    ({"detail": {"ratio": [3]}}, True),
    ({"detail": {"flag": [True]}}, True),
    ({"detail": {"flag": [1]}}, False),
    ({"detail": {"size": [True]}}, False),
    ({"detail": {"nothing": [None]}}, True),
    ({"detail": {"absent": [None]}}, False),
    ({"detail": {"empty": [""]}}, True),
    ({"detail": {"nothing": [""]}}, False),
    ({"source": ["aws.s3"], "account": ["1"]}, False),
    # arrays: any element, at any depth
    ({"resources": ["arn:aws:s3:::two"]}, True),
    ({"resources": ["arn:aws:s3:::three"]}, False),
    ({"detail": {"nested": {"deep": [3]}}}, True),
    ({"detail": {"nested": {"deep": [9]}}}, False),
    # conditions below one array hold for one element
    ({"detail": {"items": {"id": ["a"], "n": [1]}}}, True),
    ({"detail": {"items": {"id": ["a"], "n": [2]}}}, False),
    # prefix and suffix
    ({"detail": {"key": [{"prefix": "ground-truth/"}]}}, True),
    ({"detail": {"key": [{"prefix": "Ground"}]}}, False),
    ({"detail": {"key": [{"prefix": {"equals-ignore-case": "GROUND"}}]}}, True),
    ({"detail": {"key": [{"suffix": ".jsonl"}]}}, False),
    ({"detail": {"key": [{"suffix": {"equals-ignore-case": ".jsonl"}}]}}, True),
    ({"detail": {"size": [{"prefix": "5"}]}}, False),
    ({"detail": {"absent": [{"prefix": ""}]}}, False),
    ({"detail": {"empty": [{"prefix": ""}]}}, True),
    ({"source": [{"equals-ignore-case": "AWS.s3"}]}, True),
    ({"source": [{"equals-ignore-case": "AWS.s"}]}, False),
    # anything-but
    ({"source": [{"anything-but": "aws.ec2"}]}, True),
    ({"source": [{"anything-but": "aws.s3"}]}, False),
    ({"source": [{"anything-but": ["aws.ec2", "aws.s3"]}]}, False),
    ({"detail": {"size": [{"anything-but": [4, 6]}]}}, True),
    ({"detail": {"size": [{"anything-but": 5}]}}, False),
    ({"detail": {"absent": [{"anything-but": "x"}]}}, False),
    ({"detail": {"nothing": [{"anything-but": "x"}]}}, True),
    ({"source": [{"anything-but": {"prefix": "aws."}}]}, False),
    ({"source": [{"anything-but": {"prefix": ["my.", "your."]}}]}, True),
    ({"detail": {"key": [{"anything-but": {"suffix": ".JSONL"}}]}}, False),
    ({"source": [{"anything-but": {"equals-ignore-case": ["AWS.S3"]}}]}, False),
    ({"detail": {"key": [{"anything-but": {"wildcard": "*/inbox/*"}}]}}, False),
    ({"detail": {"key": [{"anything-but": {"wildcard": ["*/outbox/*"]}}]}}, True),
    ({"resources": [{"anything-but": "arn:aws:s3:::one"}]}, True),
    # numeric
    ({"detail": {"size": [{"numeric": [">", 0, "<=", 5]}]}}, True),
    ({"detail": {"size": [{"numeric": [">", 5]}]}}, False),
    ({"detail": {"size": [{"numeric": ["=", 5]}]}}, True),
    ({"detail": {"size": [{"numeric": ["<", 10]}]}}, True),
    ({"detail": {"size": [{"numeric": [">=", 5.5]}]}}, False),
    ({"detail": {"flag": [{"numeric": ["=", 1]}]}}, False),
    ({"account": [{"numeric": [">", 0]}]}, False),
    # exists
    ({"detail": {"key": [{"exists": True}]}}, True),
    ({"detail": {"absent": [{"exists": True}]}}, False),
    ({"detail": {"absent": [{"exists": False}]}}, True),
    ({"detail": {"key": [{"exists": False}]}}, False),
    ({"detail": {"nothing": [{"exists": True}]}}, True),
    ({"detail": {"none-of-them": [{"exists": True}]}}, False),
    ({"detail": {"nested": [{"exists": True}]}}, False),  # only leaves exist
    ({"detail": {"items": {"only": [{"exists": False}]}}}, False),
    ({"detail": {"no": {"such": [{"exists": False}]}}}, True),
    ({"detail": {"absent": ["x", {"exists": False}]}}, True),
    # cidr
    ({"detail": {"ip": [{"cidr": "10.0.0.0/24"}]}}, True),
    ({"detail": {"ip": [{"cidr": "10.0.1.0/24"}]}}, False),
    ({"detail": {"ip6": [{"cidr": "2001:db8::/32"}]}}, True),
    ({"detail": {"ip6": ["2001:0db8:0000:0000:0000:0000:0000:00ff"]}}, True),
    ({"detail": {"key": [{"cidr": "10.0.0.0/24"}]}}, False),
    # wildcard
    ({"detail": {"key": [{"wildcard": "ground-truth/*/part-*.JSONL"}]}}, True),
    ({"detail": {"key": [{"wildcard": "ground-truth/*.csv"}]}}, False),
    ({"detail": {"path": [{"wildcard": "a\\*b\\\\*"}]}}, True),
    ({"source": [{"wildcard": "aws.s"}]}, False),
    # $or
    ({"$or": [{"source": ["x"]}, {"detail": {"size": [5]}}]}, True),
    ({"$or": [{"source": ["x"]}, {"detail": {"size": [6]}}]}, False),
    ({"source": ["aws.s3"], "detail": {"$or": [{"key": ["x"]}, {"size": [{"numeric": [">", 4]}]}]}}, True),
    ({"source": ["x"], "$or": [{"detail": {"size": [5]}}, {"detail": {"size": [6]}}]}, False),
    ({"detail": {"$or": [{"size": [6]}, {"$or": [{"flag": [True]}, {"flag": [False]}]}]}}, True),
]


@pytest.mark.parametrize(("pattern", "expected"), CASES)
def test_match(pattern: dict[str, Any], expected: bool) -> None:
    validate(pattern)
    assert matches(pattern, EVENT) is expected


INVALID = [
    ('{"source": "aws.s3"}', '"source" must be an object or an array'),
    ('{"source": []}', "Empty arrays are not allowed"),
    ('{"detail": {}}', "Empty objects are not allowed"),
    ("{}", "Empty objects are not allowed"),
    ("[]", "Filter is not an object"),
    ("{bad", "Invalid JSON"),
    ('{"a": [["x"]]}', "Match value must be String, number, true, false, or null"),
    ('{"a": [{}]}', "Match expression name not found"),
    ('{"a": [{"prefix": "x", "suffix": "y"}]}', "Only one key allowed in match expression"),
    ('{"a": [{"like": "x"}]}', "Unrecognized match type like"),
    ('{"a": [{"prefix": 5}]}', "prefix match pattern must be a string"),
    ('{"a": [{"suffix": {"anything-but": "x"}}]}', "suffix match pattern must be a string or"),
    ('{"a": [{"equals-ignore-case": ["x"]}]}', "equals-ignore-case match pattern must be a string"),
    ('{"a": [{"exists": "yes"}]}', "exists match pattern must be either true or false."),
    ('{"a": [{"cidr": "10.0.0.0"}]}', "Malformed CIDR, one '/' required"),
    ('{"a": [{"cidr": "10.0.0.0/99"}]}', "Malformed CIDR"),
    ('{"a": [{"numeric": 5}]}', "Value of numeric must be an array."),
    ('{"a": [{"numeric": []}]}', "Invalid member in numeric match: ]"),
    ('{"a": [{"numeric": [5]}]}', "Invalid member in numeric match: 5"),
    ('{"a": [{"numeric": ["!", 5]}]}', "Unrecognized numeric range operator: !"),
    ('{"a": [{"numeric": ["<", "5"]}]}', "Value of < must be numeric"),
    ('{"a": [{"numeric": ["<", 5, ">", 1]}]}', "Too many elements in numeric expression"),
    ('{"a": [{"numeric": [">", 5, "=", 6]}]}', "Bad numeric range operator: ="),
    ('{"a": [{"numeric": [">", 5, "<", 4]}]}', "Bottom must be less than top"),
    ('{"a": [{"numeric": [">", 5, "<", 6, "<"]}]}', "Too many terms in numeric range expression"),
    ('{"a": [{"numeric": [">", 6e9]}]}', "Value must be between"),
    ('{"a": [{"anything-but": ["x", 5]}]}', "either all values are number or string"),
    ('{"a": [{"anything-but": []}]}', "Empty arrays are not allowed"),
    ('{"a": [{"anything-but": {"numeric": 5}}]}', "Unsupported anything-but pattern: numeric"),
    ('{"a": [{"anything-but": {"prefix": ""}}]}', "Null prefix/suffix not allowed"),
    ('{"a": [{"anything-but": {"prefix": [5]}}]}', "values must be strings"),
    ('{"a": [{"wildcard": "a**b"}]}', "Consecutive wildcard characters at pos 1"),
    ('{"a": [{"wildcard": "a\\\\x"}]}', "Invalid escape character at pos 1"),
    ('{"$or": {"a": ["x"]}}', "It must be an Array followed with $or."),
    ('{"$or": [{"a": ["x"]}]}', "There must have at least 2 Objects in $or relationship."),
    ('{"$or": ["x", "y"]}', "Only JSON object is allowed in array of $or relationship."),
    ('{"$or": [{"prefix": ["x"]}, {"a": ["y"]}]}', "prefix is Ruler reserved fieldName"),
]


@pytest.mark.parametrize(("text", "reason"), INVALID)
def test_invalid_pattern_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidPatternError) as refusal:
        parse(text)
    assert reason in str(refusal.value)
