"""Writes the table of HTML's named character references that examples/common/html_entities.hpp is, and
data/prompt_cleaning.json: what Python's html.unescape and diffusers' prompt_clean (without ftfy) make of texts.
Needs diffusers.

Usage: python make_prompt_cleaning.py [DATA [HEADER]]
"""

import html
import html.entities
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
NAMES = html.entities.html5

HEADER = '''#pragma once

#include <array>
#include <string_view>

// Written by tests/golden/make_prompt_cleaning.py. clang-format off

namespace ebb::examples {

/// A named character reference of HTML 5 and the one or two code points that it stands for.
struct HtmlEntity {
  std::string_view name;  // without the semicolon
  char32_t first, second;
};

/// In the order of their names.
inline constexpr std::array<HtmlEntity, %d> html_entities{{
%s
}};

/// Names that count without a semicolon too, in their order.
inline constexpr std::array<std::string_view, %d> html_entities_without_semicolon{
%s
};

}  // namespace ebb::examples
'''


def filled(items):
    lines = [" "]
    for item in items:
        if len(lines[-1]) + 2 + len(item) > 120:
            lines.append(" ")
        lines[-1] += f" {item},"
    return "\n".join(lines)


def header():
    entities = []
    for name in sorted(key.removesuffix(";") for key in NAMES if key.endswith(";")):
        points = [hex(ord(letter)) for letter in NAMES[name + ";"]]
        assert name.isascii() and len(points) <= 2
        entities.append(f'{{"{name}", {", ".join([*points, "0"][:2])}}}')
    legacy = sorted(key for key in NAMES if not key.endswith(";"))
    assert all(NAMES[name] == NAMES[name + ";"] for name in legacy)
    return HEADER % (len(entities), filled(entities), len(legacy), filled(f'"{name}"' for name in legacy))


REFERENCES = [
    "", "plain text", "&", "&&", "a & b", "&;", "& amp;", "&amp", "&amp;", "&amp;amp;", "&amp;amp;amp;",
    "&ampamp;", "&AMP;", "&Amp;", "&aMp;", "&lt;b&gt;", "&ltb&gt", "&lt&gt;", "&quot;x&quot;", "&apos;",
    "&apos", "&nbsp;|&nbsp|", "&notit;", "&notin;", "&not", "&noti", "&notin", "&no", "&n", "&g", "&gt",
    "&gtr;", "&gtrapprox;", "&GT&LT", "&copy2024", "&copy;2024", "&copysr;", "&copys", "d&eacute;j&agrave vu",
    "&eacutej&agrave;", "&Eacute;&EACUTE;", "&CounterClockwiseContourIntegral;",
    "&CounterClockwiseContourIntegral", "&CounterClockwiseContourIntegralx;", "&NotEqualTilde;", "&fjlig;",
    "&ThickSpace;", "&bne;", "&acE;", "&Tab;x&NewLine;y", "&NoBreak;", "&zwnj;&zwj;", "&unknown;", "&unknown",
    "&;amp;", "&amp&amp;&ampamp", "&&amp;&", "&am&amp;p;", "&\u65e5\u672c;", "&amp\u65e5\u672c;",
    "&\u00e9amp;", "&amp\U0001f680&lt", "&" + "a" * 40 + ";", "&amp" + "a" * 40 + ";",
    "&amp" + "\u65e5" * 40 + ";", "&" + "a" * 31 + ";", "&" + "a" * 32 + ";", "&" + "a" * 33 + ";",
    "&gt" + "b" * 30 + ";&lt;", "&amp\rx;", "&amp\u00a0;", "&amp\tx", "&amp x", "&amp<x", "&amp#x",
    "&amp\x00x", "&amp=1", "?a=1&copy=2&reg=3&sect=4", "&#amp;", "&#;", "&#", "&#x;", "&#x", "&#X;", "&#xg;",
    "&#65;", "&#65", "&#65x", "&#065;", "&#0000000000065;", "&#x41;", "&#X41;", "&#x41", "&#x41g",
    "&#x00041;", "&#xe9;&#233;&#XE9;", "&#128640;", "&#x1F680;", "&#x1f680", "&#xD800;", "&#xDFFF;",
    "&#55296;", "&#x110000;", "&#1114111;", "&#1114112;", "&#99999999999999999999;",
    "&#xffffffffffffffffffff;", "&#x10FFFF;", "&#x10fffd;", "&#xfffd;", "&#xFFFE;", "&#xFFFF;", "&#x1fffe;",
    "&#xfdcf;", "&#xfdd0;", "&#xfdef;", "&#xfdf0;", "&#0;", "&#x0;", "&#00;", "&#9;|&#10;|&#11;|&#12;|&#13;",
    "&#32;x", "&#127;", "&#160;", "&#-1;", "&#+1;", "&# 65;", "&#\u0663;", "&#38;amp;", "&#38;#38;",
    "&amp;#38;", "&amp;lt;", "&amp;#x26;lt;", "&lt;&amp;gt;&#x26;", "\U0001f680&hearts;\U0001f680",
    "caf&eacute au lait &frac12; &times; 3&deg;", "&Ouml;l &szlig; &Aring;", "&zwnj", "&ETHx", "&ETH;x",
    "&para&paral;",
]
BLANKS = [0x9, 0xA, 0xB, 0xC, 0xD, 0x1C, 0x1D, 0x1E, 0x1F, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200E), 0x2028,
          0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF, 0x180E, 0x200B, 0x0, 0x7F]
TEXTS = [
    "", " ", "\n\t ", "  a  b\n\nc\t d ", "a&nbsp;&nbsp;b", "&#32;&#32;a&#9;", "&amp;nbsp;a", " &amp;#32; a",
    "\u00a0a\u00a0", "a\u3000\u3000b", "a\x1c\x1cb", "\x1ca\x1c", "a \x1f b", "\x1f \x1ea", "a\u200bb",
    "\u200ba ", "\ufeffa", "a\x00b", "A cat &amp; a dog,\r\n  &quot;best&quot; friends  ",
    "&lt;b&gt;bold&lt;/b&gt;", "&amp;lt;b&amp;gt;", "&Tab;x&NewLine;", "\U0001f680 to the moon\n",
    "caf\u00e9\u0301 &eacute;", "\u732b\u304c \u5916\u3092\u3000\u898b\u3066\u3044\u308b",
]


def random_texts(count):
    generator = random.Random(20)
    names = sorted(NAMES)
    pieces = ["&", "&#", "&#x", ";", "#", "x", "a", " ", "\n", "<", "1", "26", "e9", "amp", "lt;", "\u00e9", "\u65e5",
              "\U0001f680", "\u00a0"]
    for _ in range(count):
        yield "".join(
            "&" + generator.choice(names)[: generator.randrange(2, 40)] if generator.random() < 0.35
            else generator.choice(pieces)
            for _ in range(generator.randrange(1, 9))
        )


def main():
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean
    from diffusers.utils import is_ftfy_available

    assert not is_ftfy_available()
    data = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data"
    default = HERE.parent.parent / "examples" / "common" / "html_entities.hpp"
    path = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default
    path.write_text(header(), encoding="utf-8")
    numbers = [f"&#{number};" for number in range(0, 0x101)]
    unescaped = [*REFERENCES, "".join(numbers), *random_texts(200)]
    cleaned = [*TEXTS, *(f"{chr(code)}{chr(code)}a{chr(code)} {chr(code)}b{chr(code)}" for code in BLANKS),
               *random_texts(50)]
    every = "".join(f"&{name}|" for name in NAMES)
    golden = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "every_name": [every, html.unescape(every)],
        "unescaped": [[text, html.unescape(text)] for text in unescaped],
        "cleaned": [[text, prompt_clean(text)] for text in cleaned],
    }
    # ASCII only: characters that editors and JSON readers treat their own way stay escaped.
    (data / "prompt_cleaning.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
