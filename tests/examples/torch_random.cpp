#include "common/torch_random.hpp"

#include <doctest/doctest.h>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "ebb/core/dtype.hpp"

namespace {

using ebb::examples::TorchGenerator;

std::string hexadecimal(std::uint64_t value, int digits) {
  std::string text(static_cast<std::size_t>(digits) + 1, '\0');
  std::snprintf(text.data(), text.size(), "%0*llx", digits, static_cast<unsigned long long>(value));
  text.pop_back();
  return text;
}

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
std::uint32_t bits_of(ebb::bfloat16 value) { return value.bits; }
std::uint32_t bits_of(ebb::float16 value) { return value.bits; }

template <ebb::Element T>
void check_draw(TorchGenerator& generator, const nlohmann::json& expected) {
  std::vector<T> values(expected.at("count").get<std::size_t>());
  generator.randn(values);
  std::string text;
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const T value : values) {
    const std::uint32_t bits = bits_of(value);
    text += hexadecimal(bits, 2 * static_cast<int>(sizeof(T)));
    for (std::size_t byte = 0; byte < sizeof(T); ++byte)
      hash = (hash ^ ((bits >> (8 * byte)) & 0xffu)) * 0x100000001b3u;
  }
  if (expected.contains("bits")) {
    CHECK(text == expected.at("bits").get<std::string>());
    return;
  }
  const auto first = expected.at("first").get<std::string>();
  const auto last = expected.at("last").get<std::string>();
  CHECK(text.substr(0, first.size()) == first);
  CHECK(text.substr(text.size() - last.size()) == last);
  CHECK(hexadecimal(hash, 16) == expected.at("fnv1a").get<std::string>());
}

TEST_CASE("randn draws PyTorch's numbers bit for bit, in every dtype, at every size and across calls") {
  std::ifstream file(EBB_GOLDEN_DIR "/random.json");
  REQUIRE(file);
  const nlohmann::json golden = nlohmann::json::parse(file);
  REQUIRE(golden.at("streams").size() >= 9);
  for (const nlohmann::json& stream : golden.at("streams")) {
    TorchGenerator generator(stream.at("seed").get<std::uint64_t>());
    std::size_t index = 0;
    for (const nlohmann::json& draw : stream.at("draws")) {
      CAPTURE(stream.at("seed").get<std::uint64_t>());
      CAPTURE(index++);
      const auto dtype = draw.at("dtype").get<std::string>();
      if (dtype == "float32") check_draw<float>(generator, draw);
      if (dtype == "bfloat16") check_draw<ebb::bfloat16>(generator, draw);
      if (dtype == "float16") check_draw<ebb::float16>(generator, draw);
    }
  }
}

TEST_CASE("the bits are those of MT19937") {
  TorchGenerator generator(5489);
  std::uint32_t value = 0;
  for (int i = 0; i < 10000; ++i) value = generator.bits();
  CHECK(value == 4123659995u);  // [rand.predef]: the 10000th number of the default seed
}

TEST_CASE("the high half of the seed is ignored, as PyTorch ignores it") {
  std::vector<float> low(20);
  std::vector<float> high(20);
  TorchGenerator(5).randn(low);
  TorchGenerator((std::uint64_t{1} << 63) + 5).randn(high);
  CHECK(low == high);
}

TEST_CASE("an empty draw leaves the stream where it was") {
  TorchGenerator drawn(3);
  TorchGenerator untouched(3);
  drawn.randn(std::span<float>());
  CHECK(drawn.bits() == untouched.bits());
}

TEST_CASE("every value is finite and the moments are those of a standard normal") {
  std::vector<float> values(std::size_t{1} << 20);
  TorchGenerator(99).randn(values);
  double sum = 0;
  double squares = 0;
  bool finite = true;
  for (const float value : values) {
    finite = finite && std::isfinite(value);
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const auto count = static_cast<double>(values.size());
  CHECK(finite);
  CHECK(std::abs(sum / count) < 4 / std::sqrt(count));
  CHECK(std::abs(squares / count - 1) < 4 * std::sqrt(2 / count));
}

}  // namespace
