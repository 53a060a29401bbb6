#include "wan/program.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/interrupt.hpp"
#include "common/png.hpp"
#include "quantize/quantize.hpp"
#include "support/file_size_limit.hpp"
#include "support/golden.hpp"
#include "support/interrupt_at.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

const std::filesystem::path pipelines = std::filesystem::path(EBB_GOLDEN_DIR) / "wan";

wan::Options small(const testing::TemporaryDirectory& directory, const std::filesystem::path& model) {
  wan::Options options;
  options.model = model.string();
  options.prompts = {"a cat"};
  options.height = options.width = 32;
  options.num_frames = 5;
  options.steps = 2;
  options.max_sequence_length = 16;
  options.compute = "fp32";
  options.threads = 1;
  options.quiet = true;
  options.output = (directory.path() / "video.y4m").string();
  return options;
}

std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// A copy of the pipeline `two_blocks` whose files a test may damage.
std::filesystem::path copied(const testing::TemporaryDirectory& directory) {
  const auto target = directory.path() / "model";
  std::filesystem::copy(pipelines / "two_blocks", target, std::filesystem::copy_options::recursive);
  return target;
}

}  // namespace

TEST_CASE("videos, latents and report") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "two_blocks");
  options.num_videos = 2;
  options.output_latents = (directory.path() / "latents.safetensors").string();
  options.report = (directory.path() / "report.json").string();
  options.quantize = "transformer=nf4,text_encoder=nf4";
  options.offload = "leaf";
  std::ostringstream out;
  wan::run(options, out);
  CHECK(names_in(directory.path()) ==
        std::vector<std::string>{"latents.safetensors", "report.json", "video-0.y4m", "video-1.y4m"});
  const auto latents = SafetensorsFile::open(options.output_latents);
  CHECK(latents.at("latents").shape == Shape{2, 16, 2, 4, 4});
  const auto report = nlohmann::json::parse(std::ifstream(options.report));
  CHECK(report.at("step_seconds").size() == 2);
  CHECK(report.at("frames") == 5);
  CHECK(report.at("weights").at("transformer").at("formats").at("nf4").at("codes_bytes").get<int>() > 0);
  CHECK(report.at("bytes_moved_per_step").get<int>() > 0);

  // The latents are what a run takes as its noise, too.
  auto again = small(directory, pipelines / "two_blocks");
  again.num_videos = 2;
  again.latents = options.output_latents;
  CHECK_NOTHROW(wan::run(again, out));
}

TEST_CASE("frames as PNG files, and an MP4 where it can be written") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "one_block");
  options.output = (directory.path() / "frames" / "").string();
  std::ostringstream out;
  wan::run(options, out);
  CHECK(names_in(directory.path() / "frames").size() == 5);
  const auto picture = examples::read_png(directory.path() / "frames" / "0004.png");
  CHECK(picture.width == 32);
  CHECK(std::any_of(picture.text.begin(), picture.text.end(),
                    [](const auto& entry) { return entry.second.find("a cat\nSteps: 2") == 0; }));
  options.output = (directory.path() / "video.mp4").string();
  if (examples::mp4_available()) {
    wan::run(options, out);
    CHECK(std::filesystem::file_size(options.output) > 0);
  } else {
    CHECK_THROWS_WITH_AS(wan::run(options, out), doctest::Contains("FFmpeg"), ConfigError);
  }
}

TEST_CASE("several videos as PNG files lie beside each other") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "one_block");
  options.num_videos = 2;
  std::ostringstream out;
  SUBCASE("by a pattern, in a directory that is not there") {
    options.output = (directory.path() / "new" / "%d.png").string();
    wan::run(options, out);
    CHECK(names_in(directory.path() / "new").size() == 10);
  }
  SUBCASE("in directories of their own, in one that is not there") {
    options.output = (directory.path() / "new" / "").string();
    wan::run(options, out);
    CHECK(names_in(directory.path() / "new") == std::vector<std::string>{"0", "1"});
    CHECK(names_in(directory.path() / "new" / "1").size() == 5);
  }
  SUBCASE("and leave nothing where they fail") {
    options.output = (directory.path() / "new" / "").string();
    const testing::FileSizeLimit limit(100);
    CHECK_THROWS_AS(wan::run(options, out), FileError);
  }
  CHECK(names_in(directory.path()).size() <= 1);
  CHECK((names_in(directory.path()).empty() || std::filesystem::exists(directory.path() / "new")));
}

TEST_CASE("the comparison of videos shows no difference between policies") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "two_blocks");
  options.compare = true;
  std::ostringstream out;
  wan::run(options, out);
  std::istringstream lines(out.str());
  std::string line;
  std::vector<std::string> rows;
  while (std::getline(lines, line))
    if (line.starts_with("| quantized") || line.starts_with("| +")) rows.push_back(line);
  REQUIRE(rows.size() == 5);
  for (std::size_t row = 1; row < rows.size(); ++row) CHECK(rows[row].ends_with(" | 0 |"));
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("bad input to wan ends with a message that names the thing, and without output") {
  const testing::TemporaryDirectory directory;
  std::ostringstream out;
  const auto fails = [&](const wan::Options& options, std::initializer_list<const char*> words) {
    try {
      wan::run(options, out);
      FAIL("no error");
    } catch (const std::exception& error) {
      const std::string message = error.what();
      CAPTURE(message);
      for (const std::string word : words) CHECK(message.find(word) != std::string::npos);
    }
    for (const std::string& name : names_in(directory.path())) CHECK(name == "model");
  };
  auto options = small(directory, directory.path() / "nothing");
  fails(options, {"model_index.json"});
  const auto model = copied(directory);
  options = small(directory, model);
  const auto with = [&](const std::filesystem::path& file, const nlohmann::json& patch,
                        std::initializer_list<const char*> words) {
    const auto before = nlohmann::json::parse(std::ifstream(model / file));
    auto json = before;
    json.merge_patch(patch);
    std::ofstream(model / file) << json;
    fails(options, words);
    std::ofstream(model / file) << before;
  };
  with("model_index.json", {{"_class_name", "FluxPipeline"}}, {"WanPipeline", "FluxPipeline"});
  with("transformer/config.json", {{"num_layers", 3}}, {"blocks.2", "transformer"});
  with("transformer/config.json", {{"num_layers", 1}}, {"blocks.1", "not part of the model"});
  with("transformer/config.json", {{"ffn_dim", 41}}, {"ffn.net.0.proj.weight", "41"});
  with("transformer/config.json", {{"text_dim", 48}}, {"text_encoder", "48", "32"});
  with("transformer/config.json", {{"image_dim", 1280}}, {"image-to-video"});
  with("vae/config.json", {{"is_residual", true}}, {"is_residual"});
  with("vae/config.json", {{"num_res_blocks", 3}}, {"resnets.2", "vae"});
  with("text_encoder/config.json", {{"d_ff", 80}}, {"wi_0.weight", "80"});
  with("scheduler/scheduler_config.json", {{"use_flow_sigmas", false}}, {"use_flow_sigmas"});
  const auto vae = model / "vae" / "diffusion_pytorch_model.safetensors";
  std::filesystem::resize_file(vae, std::filesystem::file_size(vae) - 1);
  fails(options, {"diffusion_pytorch_model.safetensors"});

  options = small(directory, pipelines / "two_blocks");
  const auto option = [&](auto set, std::initializer_list<const char*> words) {
    auto changed = options;
    set(changed);
    fails(changed, words);
  };
  option([](auto& o) { o.height = 8; }, {"height"});
  option([](auto& o) { o.num_frames = 0; }, {"num-frames"});
  option([](auto& o) { o.flow_shift = -1; }, {"flow-shift"});
  option([](auto& o) { o.quantize = "unet=nf4"; }, {"unet", "transformer"});
  option([](auto& o) { o.offload = "some"; }, {"some", "leaf"});
  option([](auto& o) { o.output = "/proc/nowhere/video.y4m"; }, {"/proc/nowhere"});
  option([](auto& o) { o.output = "video.gif"; }, {"video.gif", ".mp4"});
  option([](auto& o) { o.report = o.output; }, {"--report", "--output", "video.y4m"});
  option([](auto& o) { o.int8_threshold = -1; }, {"--int8-threshold", "-1"});
  option([](auto& o) { o.latents = "gone.safetensors"; }, {"gone.safetensors"});
  option([](auto& o) { o.prompts.clear(); }, {"prompt"});
}

TEST_CASE("a full disk leaves no part of a video") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "two_blocks");
  std::ostringstream out;
  const testing::FileSizeLimit limit(100);
  CHECK_THROWS_WITH_AS(wan::run(options, out), doctest::Contains("video.y4m"), FileError);
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("Ctrl-C stops a video between steps, with status 130 and no partial file") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "two_blocks");
  options.quiet = false;
  options.steps = 3;
  const examples::InterruptGuard guard;
  std::ostringstream out;
  // The watcher tells that denoising begins after it has looked for a signal, and looks again after the first step.
  const testing::InterruptAt interrupt("denoise: 3 steps");
  try {
    wan::run(options, out);
    FAIL("it went on");
  } catch (const examples::Interrupted& stop) {
    CHECK(stop.exit_code() == 130);
  }
  CHECK(interrupt.printed().find("denoise: 3 steps") != std::string::npos);
  CHECK(interrupt.printed().find("denoise 3/3") == std::string::npos);
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("a quantized Wan directory makes the same video as quantizing at load") {
  const testing::TemporaryDirectory directory;
  const std::string plan = "transformer=nf4,text_encoder=nf4";
  const auto written = directory.path() / "nf4";
  examples::quantize_pipeline(pipelines / "three_blocks", written,
                              {QuantizationPlan::parse(plan, {}, {}), DType::f32, 40000}, [](const auto&) {});
  const auto latents = [&](wan::Options options, const std::string& name) {
    options.output_latents = (directory.path() / name).string();
    std::ostringstream out;
    wan::run(options, out);
    return examples::read_values(SafetensorsFile::open(options.output_latents), "latents").values;
  };
  auto at_load = small(directory, pipelines / "three_blocks");
  at_load.quantize = plan;
  CHECK(latents(at_load, "at_load") == latents(small(directory, written), "stored"));
}
