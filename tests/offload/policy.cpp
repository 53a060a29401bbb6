#include "ebb/offload/policy.hpp"

#include <doctest/doctest.h>

#include <string>

using ebb::OffloadSpec;
using ebb::parse_bytes;

TEST_CASE("bytes with suffixes") {
  CHECK(parse_bytes("0") == 0);
  CHECK(parse_bytes("1500000000") == 1500000000);
  CHECK(parse_bytes("6G") == 6000000000);
  CHECK(parse_bytes("6GB") == 6000000000);
  CHECK(parse_bytes("1.5G") == 1500000000);
  CHECK(parse_bytes("0.3M") == 300000);
  CHECK(parse_bytes("2K") == 2000);
  CHECK(parse_bytes("512MiB") == 512u << 20);
  CHECK(parse_bytes("1.5KiB") == 1536);
  CHECK(parse_bytes("3GiB") == 3ull << 30);
  CHECK(parse_bytes("7B") == 7);
  CHECK(parse_bytes("18446744073709551615") == ~std::size_t{0});
  for (const char* bad : {"", "G", "-1", "+1", "1 G", "1g", "1.G.", "1..5G", "18446744073709551616", "99999999999G",
                          "1e9", "6T", ".", "0x10", "1.00000000000000000001G"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS((void)parse_bytes(bad), ebb::ConfigError);
  }
  CHECK_THROWS_WITH_AS((void)parse_bytes("6T"),
                       "'6T' is not a number of bytes: there is no suffix 'T'; write a number with an optional suffix "
                       "K, M, G, KiB, MiB or GiB, e.g. 6G",
                       ebb::ConfigError);
}

TEST_CASE("policies by name") {
  CHECK(OffloadSpec::parse("none") == OffloadSpec());
  CHECK(OffloadSpec::parse("model") == OffloadSpec(ebb::ModelOffload{}));
  CHECK(OffloadSpec::parse("block") == OffloadSpec(ebb::BlockOffload{1, 1}));
  CHECK(OffloadSpec::parse("block:3") == OffloadSpec(ebb::BlockOffload{3, 1}));
  CHECK(OffloadSpec::parse("leaf") == OffloadSpec(ebb::LeafOffload{2}));
  CHECK(OffloadSpec::parse("budget:1.5GiB") == OffloadSpec(ebb::Budget{3ull << 29, 2}));
  for (const char* text :
       {"none", "model", "block", "block:3", "leaf", "budget:6G", "budget:512MiB", "budget:1000001", "budget:0"})
    CHECK(OffloadSpec::parse(text).text() == text);
}

TEST_CASE("what is no policy says which exist") {
  for (const char* bad : {"", "blocks", "none:1", "leaf:2", "model:", "None", "block:1:2x", "sequential"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS((void)OffloadSpec::parse(bad), ebb::ConfigError);
  }
  CHECK_THROWS_WITH_AS((void)OffloadSpec::parse("sequential"),
                       "there is no offload policy 'sequential'; choose none, model, block, block:N, leaf or "
                       "budget:BYTES",
                       ebb::ConfigError);
  for (const char* bad : {"block:0", "block:", "block:-1", "block:1x", "block:99999999999999999999"}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH_AS((void)OffloadSpec::parse(bad), doctest::Contains("at least 1, e.g. block:2"),
                         ebb::ConfigError);
  }
  CHECK_THROWS_WITH_AS((void)OffloadSpec::parse("budget"), doctest::Contains("e.g. budget:6G"), ebb::ConfigError);
}

TEST_CASE("settings") {
  CHECK(OffloadSpec::parse("block:4").settings() ==
        ebb::OffloadSettings{.level = ebb::Level::block, .blocks_per_unit = 4, .lookahead = 1});
  CHECK(OffloadSpec::parse("budget:6G").settings() ==
        ebb::OffloadSettings{.level = ebb::Level::leaf, .lookahead = 2, .budget_bytes = 6000000000});
  CHECK(ebb::ModelOffload{}.settings().lookahead == 0);
}
