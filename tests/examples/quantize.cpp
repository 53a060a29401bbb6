#include "quantize/quantize.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "common/interrupt.hpp"
#include "support/file_size_limit.hpp"
#include "support/golden.hpp"
#include "support/temporary_directory.hpp"

namespace {

using ebb::testing::first_missing;
using ebb::testing::message_of;
using ebb::testing::TemporaryDirectory;
namespace fs = std::filesystem;

const fs::path model = fs::path(EBB_GOLDEN_DIR) / "pipelines" / "dev";

std::vector<std::string> quantize(
    const fs::path& source, const fs::path& target, const std::vector<std::string>& skip = {},
    const std::function<void()>& between = [] {}) {
  const ebb::examples::QuantizeOptions options{ebb::QuantizationPlan::parse("transformer=nf4", {}, skip)};
  return ebb::examples::quantize_pipeline(source, target, options, [&](const auto&) { between(); });
}

/// A copy of the pipeline that a test may add files to, without what diffusers made of it.
fs::path copied(const TemporaryDirectory& directory) {
  fs::copy(model, directory / "model", fs::copy_options::recursive);
  fs::remove(directory / "model/expected.safetensors");
  return directory / "model";
}

TEST_CASE("the directory may end in a slash, be empty, or be a link to an empty one") {
  const TemporaryDirectory directory;
  const auto source = copied(directory);
  fs::create_directory(directory / "empty");
  fs::create_directory(directory / "linked");
  fs::create_symlink(directory / "linked", directory / "link");
  for (const char* name : {"new", "slash/", "empty/", "a/b/c", "link"}) {
    CAPTURE(name);
    CHECK(quantize(source, directory / name).empty());
    CHECK(fs::exists(directory / name / "model_index.json"));
  }
  CHECK(fs::is_symlink(directory / "link"));
  CHECK(directory.files() == 7);  // no partial one
}

TEST_CASE("a directory that cannot be written is refused before work, and what is there stays") {
  const TemporaryDirectory directory;
  const auto source = copied(directory);
  directory.write("file", "");
  const auto refused = [&](const fs::path& target) {
    return message_of<ebb::FileError>([&] { quantize(source, target, {}, [] { FAIL("it began"); }); });
  };
  CHECK(first_missing(refused(""), {"empty name"}) == "");
  CHECK(first_missing(refused(directory / "file"), {"file", "no directory"}) == "");
  CHECK(fs::is_regular_file(directory / "file"));
  CHECK(first_missing(refused(source), {"lies in"}) == "");
  CHECK(first_missing(refused(source / "new/"), {"lies in", "model"}) == "");
  CHECK(first_missing(refused(directory / "x/../model/vae/new"), {"lies in"}) == "");
  fs::create_directory_symlink(source, directory / "link");
  CHECK(first_missing(refused(directory / "link/new"), {"lies in"}) == "");
  CHECK(directory.files() == 3);
  CHECK(quantize(source, directory / "model-nf4").empty());  // begins with the same letters, and lies beside it
}

TEST_CASE("weights beside model_index.json are left out, with a line that says so") {
  const TemporaryDirectory directory;
  const auto source = copied(directory);
  directory.write("model/flux1-dev.safetensors", "all weights once more");
  directory.write("model/LICENSE.md", "text");
  const auto warnings = quantize(source, directory / "written");
  REQUIRE(warnings.size() == 1);
  CHECK(first_missing(warnings[0], {"flux1-dev.safetensors", "not copied"}) == "");
  CHECK_FALSE(fs::exists(directory / "written/flux1-dev.safetensors"));
  CHECK(TemporaryDirectory::read(directory / "written/LICENSE.md") == "text");
  const auto vae = "vae/diffusion_pytorch_model.safetensors";
  CHECK(TemporaryDirectory::read(directory / "written" / vae) == TemporaryDirectory::read(source / vae));
}

TEST_CASE("a link into a circle is refused by name") {
  const TemporaryDirectory directory;
  const auto source = copied(directory);
  fs::create_symlink("around", source / "scheduler/around");
  CHECK(first_missing(message_of<ebb::FileError>([&] { quantize(source, directory / "new"); }),
                      {"around", "cannot be copied", "Too many levels"}) == "");
  CHECK(!fs::exists(directory / "new"));
}

TEST_CASE("a name to skip that no linear has is told") {
  const TemporaryDirectory directory;
  const auto warnings = quantize(copied(directory), directory / "written", {"proj_out", "nope"});
  REQUIRE(warnings.size() == 1);
  CHECK(first_missing(warnings[0], {"--skip nope"}) == "");
}

TEST_CASE("a signal and a full disk leave nothing, and the reason is told") {
  const TemporaryDirectory directory;
  {
    const ebb::examples::InterruptGuard guard;
    std::size_t linears = 0;
    CHECK_THROWS_AS(quantize(model, directory / "written", {},
                             [&] {
                               if (++linears == 2) std::raise(SIGINT);
                             }),
                    ebb::examples::Interrupted);
    CHECK(linears == 2);
  }
  {
    const ebb::examples::InterruptGuard guard;
    ebb::examples::detail::copy_files(model, directory / "copy", [](const auto&) { return false; });
    std::raise(SIGINT);
    CHECK_THROWS_AS(ebb::examples::detail::copy_in_pieces(model / "vae/diffusion_pytorch_model.safetensors",
                                                          directory / "copy/again"),
                    ebb::examples::Interrupted);
    CHECK_FALSE(fs::exists(directory / "copy/again"));
  }
  fs::remove_all(directory / "copy");
  const ebb::testing::FileSizeLimit limit(3000);
  const auto message = message_of<ebb::FileError>([&] { quantize(model, directory / "written"); });
  CHECK(first_missing(message, {"File too large"}) == "");
  CHECK(directory.files() == 0);
}

}  // namespace
