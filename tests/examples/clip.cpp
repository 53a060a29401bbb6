#include "common/clip.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/golden.hpp"
#include "support/loaded.hpp"

using namespace ebb;
using examples::ClipConfig;
using examples::ClipTextModel;
using examples::ConfigFile;

namespace {

template <Element T>
std::vector<T> pooled(const testing::Golden& golden, const std::string& ids_key, LoadOptions options = {}) {
  const auto directory = golden.directory() / "text_encoder";
  options.compute = dtype_of<T>;
  const testing::Loaded<ClipTextModel> model(
      ClipTextModel::make(ClipConfig::read(ConfigFile::open(directory / "config.json"))), directory, options);
  testing::Host<T> host;
  const auto ids = golden.ids(ids_key);
  const std::size_t batch = golden.shape("clip.pooled")[0];
  std::vector<T> result(batch * model->config.width);
  call(host.ctx, *model, std::span<const std::int32_t>(ids), batch,
       Matrix<T>(result.data(), batch, model->config.width));
  return result;
}

}  // namespace

TEST_CASE("CLIP's pooled output equals transformers'") {
  for (const char* name : {"dev", "schnell", "three_heads", "wide"}) {
    CAPTURE(name);
    const testing::Golden golden(name);
    CHECK(testing::relative_error(pooled<float>(golden, "clip.ids"), golden.floats("clip.pooled")) < 1e-5);
    CHECK(testing::relative_error(pooled<bfloat16>(golden, "clip.ids"), golden.floats("bf16.clip.pooled")) < 2e-2);
    if (golden.has("negative.clip.ids"))
      CHECK(testing::relative_error(pooled<float>(golden, "negative.clip.ids"), golden.floats("negative.clip.pooled")) <
            1e-5);
  }
}

TEST_CASE("CLIP refuses ids that are not in its table and prompts that are too long") {
  const testing::Golden golden("dev");
  const auto directory = golden.directory() / "text_encoder";
  const testing::Loaded<ClipTextModel> model(
      ClipTextModel::make(ClipConfig::read(ConfigFile::open(directory / "config.json"))), directory);
  testing::Host<float> host;
  std::vector<float> result(model->config.width);
  const Matrix<float> out(result.data(), 1, result.size());
  const std::vector<std::int32_t> outside{0, 100000};
  CHECK_THROWS_WITH_AS(call(host.ctx, *model, std::span<const std::int32_t>(outside), std::size_t{1}, out),
                       doctest::Contains("100000"), ShapeError);
  const std::vector<std::int32_t> many(model->config.positions + 1, 5);
  CHECK_THROWS_WITH_AS(call(host.ctx, *model, std::span<const std::int32_t>(many), std::size_t{1}, out),
                       doctest::Contains("positions"), ShapeError);
}
