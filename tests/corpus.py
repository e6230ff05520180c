"""Tricky JSON written for this project: documents every strict parser must take, and documents it must refuse.

Only bytes; whether a document is malformed is decided by orjson in the tests, never by a list here. The two lists
only say what they are meant to be, and a test holds them to it.
"""

DEPTH_LIMIT = 1024

QUOTE = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT",'
    b'"b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}'
)
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT",'
    b'"t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}'
)
DEPTH = (
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT",'
    b'"U":5123107832006,"u":5123107837557,"pu":5123107831937,"b":[["58710.20","0.014"],["61496.50","0.000"]],'
    b'"a":[["61800.30","2.510"]]}}'
)
SPOT_QUOTE = b'{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}'
ACK = b'{"result":null,"id":1}'
FRAMES = (QUOTE, TRADE, DEPTH, SPOT_QUOTE, ACK)


def nested(depth: int, inner: bytes = b"", opener: bytes = b"[", closer: bytes = b"]") -> bytes:
    """`depth` containers inside each other around `inner`."""
    return opener * depth + inner + closer * depth


GOOD_NUMBERS = [
    "0", "-0", "0.0", "-0.0", "1", "-1", "10", "123456789", "0.1", "-0.1", "1.5", "1e5", "1E5", "1e+5", "1e-5",
    "1E+05", "1e00005", "0e0", "0e400", "-0e400", "0.0e99999999999999999999", "1e308", "-1e308",
    "1.7976931348623157e308", "1e-308", "2.2250738585072011e-308", "5e-324", "4.9e-324", "1e-324", "1e-400",
    "1e-99999999999999999999", "2.4703282292062327e-324", "2.4703282292062328e-324", "9007199254740991",
    "9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
    "123456789012345678901234567890", "0.1234567890123456789012345678901234567890", "100000000000000000000000e-23",
    "0.00000000000000000000000000001e29", "1.0000000000000000000000000000000000000000",
]  # fmt: skip
GOOD_NUMBERS += [
    "1" * 308, "1" + "0" * 308, "1" + "0" * 400 + "e-400", "0." + "0" * 400 + "1e401", "1" + "0" * 5000 + "e-5000",
    "0." + "0" * 5000 + "1e5001", "0." + "9" * 2000, str(2**1024 - 2**970 - 1), str(2**1024 - 2**970 - 1) + ".99999",
]  # fmt: skip

BAD_NUMBERS = [
    "-", "+", "+1", "--", "--1", "-+1", "01", "-01", "00", "-00", "007", "1.", "-1.", ".5", "-.5", "1.e5", ".", "e5",
    "1e", "1e+", "1e-", "1E", "1ee5", "1e5e5", "1e5.5", "1.2.3", "1..2", "0x1", "0X1F", "0b1", "1_0", "1f", "1a",
    "NaN", "nan", "-NaN", "Infinity", "-Infinity", "inf", "infinity", "1e400", "-1e400", "1e309",
    "1.7976931348623159e308", "2e308", "1e99999999999999999999", "0.1e310", "0-1", "1-1", "1+1", "1-", "0e", "0e+",
    "0.e1", "-e1", "\u0661", "\uff11",
]  # fmt: skip
BAD_NUMBERS += ["1" + "0" * 309, "9" * 309, "-" + "9" * 310, str(2**1024 - 2**970), "1e" + "9" * 400]
# Refused by value only: each is a fine number by grammar, and infinite.
OVERFLOWS = [
    "1e400", "-1e400", "1e309", "1.7976931348623159e308", "2e308", "9" * 309, str(2**1024 - 2**970),
]  # fmt: skip

# What may stand between the quotes of a string.
GOOD_STRINGS = [
    b"", b" ", b"a", b"\x7f", b"/", b"\\/", b'\\"', b"\\\\", b"\\b\\f\\n\\r\\t", b"\\u0000", b"\\u001f", b"\\u0041",
    b"\\uABCD", b"\\uabcd", b"\\uAbCd", b"\\ud83d\\ude00", b"\\uD83D\\uDE00", b"\\udbff\\udfff", b"\\ud800\\udc00",
    b"\\uFFFF", b"\\uFFFE", b"\\\\u0041", b"\\\\", b"\\\\\\\\", b'\\\\\\"', "é".encode(), "\u07ff\u0800".encode(),
    "\ud7ff\ue000\uffff".encode(), "😀".encode(), "\U00010000\U0010ffff".encode(), "\u2028\u2029".encode(),
    "这是测试币456".encode(), "币安人生USDT".encode(), "a\u0301".encode(), b"{}[]:,", b"null",
    b"x" * 15, b"x" * 16, b"x" * 17,
    b"x" * 63, b"x" * 64, b"x" * 65, b"x" * 1000, b"x" * 15 + b"\\n", b"x" * 16 + b"\\n", b"x" * 14 + "é".encode(),
    b"x" * 15 + "é".encode(), b"x" * 13 + "😀".encode(), "\u0080".encode(), b"'", b"//", b"/**/",
]  # fmt: skip

BAD_STRINGS = [
    b"\\", b'\\"\\', b"\\x41", b"\\'", b"\\a", b"\\v", b"\\0", b"\\U0041", b"\\u", b"\\u0", b"\\u00", b"\\u004",
    b"\\u00g0", b"\\u 041", b"\\u+041", b"\\u-041", b"\\u{41}", b"\\ ", b"\\\x00", b"\\\n", b"\\\xc3\xa9", b"\\ud800",
    b"\\udbff", b"\\udc00", b"\\udfff", b"\\ud800x", b"\\ud800\\n", b"\\ud800\\u0041", b"\\ud800\\ud800",
    b"\\udc00\\ud800", b"\\ud83d\\ude0", b"\\ud83d\\", b"\\ud83d\\u", b"\\ud83d\xf0\x9f\x98\x80", b"\\ud800\\\\udc00",
    *[bytes([control]) for control in range(0x20)], b"x" * 15 + b"\x00", b"x" * 16 + b"\x1f", b"x" * 31 + b"\n",
    b"abc\tdef", b"\x80", b"\xbf", b"\xc0\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xc2", b"\xc2 ", b"\xc3(",
    b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x82", b"\xe2\x82 ", b"\xe2(\xa1", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\xbd\xed\xb8\x80", b"\xee\x80", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98",
    b"\xf0\x9f\x98 ", b"\xf0(\x8c\xbc", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe",
    b"\xff", b"\xc3\xa9\xc3", b"x" * 15 + b"\xc3", b"x" * 14 + b"\xe2\x82", b"x" * 16 + b"\xff",
]  # fmt: skip

GOOD_STRUCTURES = [
    b"{}", b"[]", b"[[]]", b"[{}]", b'{"":0}', b'{"":{}}', b"null", b"true", b"false", b'""', b'"a"', b"0", b" 1",
    b"1 ", b" \t\r\n[ \t\r\n1 \t\r\n, \t\r\n2 \t\r\n] \t\r\n", b' { "a" : 1 , "b" : [ ] } ', b"[null,true,false]",
    b"\r\n1\r\n", b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b'{"a":{"a":{"a":[]}}}', b"[1,[2,[3,[4]]]]",
    b'[{"a":1},{"a":2}]', b'{"a":[1,2,{"b":null}],"c":"d"}', b"[" + b",".join([b"[]"] * 3000) + b"]",
    b"[" + b"0," * 5000 + b"0]", b'{"' + b"k" * 10000 + b'":1}', b" " * 3000 + b"[]" + b"\n" * 3000, b'{"\\u0000":1}',
    b'{"e\\u0301":"x"}', nested(DEPTH_LIMIT), nested(DEPTH_LIMIT - 1, b"1"), nested(DEPTH_LIMIT, b"1"),
    nested(DEPTH_LIMIT, b'""'), nested(DEPTH_LIMIT - 1, b"{}"), nested(DEPTH_LIMIT, b"1", b'{"a":', b"}"),
    nested(DEPTH_LIMIT - 1, b"[]", b'{"a":', b"}"), nested(DEPTH_LIMIT // 2, b"1", b'[{"a":', b"}]"),
    b"[" + b",".join([nested(DEPTH_LIMIT - 1)] * 3) + b"]",
]  # fmt: skip

BAD_STRUCTURES = [
    b"", b" ", b"\n\n", b"\x00", b"{", b"}", b"[", b"]", b'"', b"'", b":", b",", b"\\", b"{]", b"[}", b"{[", b"[{",
    b"[[]", b"[]]", b"{}}", b"{{}}", b"[,]", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"[1;2]", b"[1:2]", b'["a":1]',
    b"{,}", b'{"a"}', b'{"a":}', b'{"a":1,}', b'{,"a":1}', b'{"a" 1}', b'{"a"::1}', b'{"a":1:2}', b'{"a":1 "b":2}',
    b'{"a":1,,"b":2}', b'{"a",1}', b"{1:2}", b"{null:1}", b"{true:1}", b"{[]:1}", b"{a:1}", b"{'a':1}", b"['a']",
    b'{"a":1', b'{"a":', b'{"a"', b'{"a', b'{"', b'{"a":1,', b'{"a":1,"', b"[1", b"[1,", b'["a', b'["a"', b'["a",',
    b'"a', b'"a\\"', b"tru", b"truex", b"True", b"TRUE", b"t", b"fals", b"False", b"falsey", b"nul", b"nulll",
    b"None", b"Null", b"n", b"undefined", b"[nul]", b"[tru]", b"[fals]", b"[truefalse]", b"[nullnull]", b"{}{}",
    b"[][]", b"1 2", b'"a""b"', b"{} x", b"[]\x00", b"1\x00", b"\x00[]", b"[\x00]", b'{"a":\x001}', b"[1]#",
    b"[1]//x", b"/*x*/1", b"[1/*x*/]", b"#1", b"\xef\xbb\xbf{}", b"\xef\xbb\xbf", b"\xff\xfe{\x00}\x00",
    b"{\x00}\x00", b"\xc2\xa0[]", b"[]\xc2\xa0", b"\xe2\x80\xa8[]", b"[\xe2\x80\xa81]", b"\x0b[]", b"\x0c[]",
    b"[\x0c]", b"[\x0b1]", b"[\x1f]", b"[\xa01]", b"\x85[]", b"[]\x85", b"[1]\xff", b"\xff[1]", b"[1]\xc3", b"[*]",
    b"*", b"<x/>", b"ping", b"pong", b"Connected", b"[1,\n2,\n,]", b"[\n", b"{\n", b"[ ", b"{ ", b'{"a":"b"',
    b'{"a":"b', b'{"a":[', b'{"a":[1', b'{"a":{', b'{"a":{}', b'{"a":[]', b'[{"a":1]}', b'{"a":[1}', b'{"a":(1)}',
    b"(1)", nested(DEPTH_LIMIT + 1), nested(DEPTH_LIMIT, b"[]"), nested(DEPTH_LIMIT, b"{}"),
    nested(DEPTH_LIMIT + 1, b"1"), nested(DEPTH_LIMIT + 1, b"1", b'{"a":', b"}"),
    nested(DEPTH_LIMIT, b"[]", b'{"a":', b"}"), nested(DEPTH_LIMIT // 2, b"[]", b'[{"a":', b"}]"), nested(100_000),
    nested(100_000, b"1", b'{"a":', b"}"), b"[" * 1024, b"[" * 1025, b"[" * 100_000, b'{"a":' * 100_000,
    b'[{"a":' * 50_000, b"{" * 2000, b"]" * 2000, b"[" * 5 + b"]" * 4, nested(3) + b"]", b"\xed\xa0\x80", b"[\xff]",
    b'{"a":\xff}', b'{\xff"a":1}', b"\x1e[]", b"\x7f[]",
]  # fmt: skip


def in_every_place(value: bytes) -> list[bytes]:
    """The value as a whole document, in an array, under a key nobody reads, under keys a schema does read."""
    return [
        value,
        b" " + value + b"\n",
        b"[" + value + b"]",
        b"[0," + value + b",0]",
        b'{"zz":' + value + b"}",
        b'{"a":' + value + b',"b":1}',
        QUOTE.replace(b'"61800.20"', value),
        QUOTE.replace(b"5123107839020", value),
        QUOTE.replace(b'"b":', b'"zz":' + value + b',"b":'),
        SPOT_QUOTE[:-1] + b',"zz":' + value + b"}",
        SPOT_QUOTE[:-1] + b',"zz":[[' + value + b"]]}",
    ]


def strings_as_documents(strings: list[bytes]) -> list[bytes]:
    documents = []
    for string in strings:
        quoted = b'"' + string + b'"'
        documents += in_every_place(quoted)
        documents += [
            b"{" + quoted + b":1}",
            SPOT_QUOTE[:-1] + b"," + quoted + b":1}",
            QUOTE.replace(b'"BTCUSDT"', quoted),
        ]
    return documents


def numbers_as_documents(numbers: list[str]) -> list[bytes]:
    return [document for number in numbers for document in in_every_place(number.encode())]


WELL_FORMED = GOOD_STRUCTURES + list(FRAMES) + numbers_as_documents(GOOD_NUMBERS) + strings_as_documents(GOOD_STRINGS)
MALFORMED = BAD_STRUCTURES + numbers_as_documents(BAD_NUMBERS) + strings_as_documents(BAD_STRINGS)
