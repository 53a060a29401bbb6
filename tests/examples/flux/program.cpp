#include "flux/program.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <cstring>
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

const std::filesystem::path pipelines = std::filesystem::path(EBB_GOLDEN_DIR) / "pipelines";

flux::Options small(const testing::TemporaryDirectory& directory, const std::filesystem::path& model) {
  flux::Options options;
  options.model = model.string();
  options.prompts = {"a cat"};
  options.height = options.width = 32;
  options.steps = 2;
  options.max_sequence_length = 16;
  options.compute = "fp32";
  options.threads = 1;
  options.quiet = true;
  options.output = (directory.path() / "picture.png").string();
  return options;
}

std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// A copy of the pipeline `dev` whose files a test may damage.
std::filesystem::path copied(const testing::TemporaryDirectory& directory) {
  const auto target = directory.path() / "model";
  std::filesystem::copy(pipelines / "dev", target, std::filesystem::copy_options::recursive);
  return target;
}

}  // namespace

TEST_CASE("picture, latents and report") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "dev" / "");
  options.num_images = 2;
  options.output_latents = (directory.path() / "latents.safetensors").string();
  options.report = (directory.path() / "report.json").string();
  options.quantize = "transformer=nf4,text_encoder_2=nf4";
  options.offload = "leaf";
  std::ostringstream out;
  flux::run(options, out);
  CHECK(names_in(directory.path()) ==
        std::vector<std::string>{"latents.safetensors", "picture-0.png", "picture-1.png", "report.json"});
  const auto picture = examples::read_png(directory.path() / "picture-1.png");
  CHECK(picture.width == 32);
  const auto parameters = std::find_if(picture.text.begin(), picture.text.end(),
                                       [](const auto& entry) { return entry.first == "parameters"; });
  REQUIRE(parameters != picture.text.end());
  CHECK(testing::first_missing(parameters->second, {"Model: dev,", "Max sequence length: 16,"}) == "");
  CHECK(parameters->second.find("a cat\nSteps: 2") == 0);
  const auto latents = SafetensorsFile::open(options.output_latents);
  CHECK(latents.at("latents").shape == Shape{2, 4, 64});
  const auto report = nlohmann::json::parse(std::ifstream(options.report));
  CHECK(report.at("step_seconds").size() == 2);
  CHECK(report.at("weights").at("transformer").at("formats").at("nf4").at("codes_bytes").get<int>() > 0);
  CHECK(report.at("bytes_moved_per_step").get<int>() > 0);
  int most = 0;
  for (const char* phase : {"text", "denoise", "decode"}) {
    const int bytes = report.at(std::string(phase) + "_workspace_bytes").get<int>();
    CHECK(bytes > 0);
    most = std::max(most, bytes);
  }
  CHECK(report.at("workspace_peak_bytes").get<int>() == most);
  CHECK(report.at("arena_peak_bytes").get<int>() <
        report.at("weights").at("transformer").at("stored_bytes").get<int>());

  // The latents are what a run takes as its noise, too.
  auto again = small(directory, pipelines / "dev");
  again.num_images = 2;
  again.latents = options.output_latents;
  CHECK_NOTHROW(flux::run(again, out));
}

TEST_CASE("the comparison shows no difference between policies") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "dev");
  options.compare = true;
  std::ostringstream out;
  flux::run(options, out);
  std::istringstream lines(out.str());
  std::string line;
  std::vector<std::string> rows;
  while (std::getline(lines, line))
    if (line.starts_with("| quantized") || line.starts_with("| +")) rows.push_back(line);
  REQUIRE(rows.size() == 5);
  for (std::size_t row = 1; row < rows.size(); ++row) CHECK(rows[row].ends_with(" | 0 |"));
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("options that the comparison would ignore are refused beside it") {
  const auto parses = [](const std::string& more) {
    flux::Options options;
    CLI::App app;
    options.declare(app);
    app.parse("--model m --prompt p --compare " + more);
  };
  CHECK_NOTHROW(parses("--exclude vae --quiet"));
  for (const char* option : {"--offload leaf", "--lookahead 2", "--report r.json", "--trace t.json", "--output o.png",
                             "--output-latents l.safetensors"})
    CHECK_THROWS_AS(parses(option), CLI::ExcludesError);
}

TEST_CASE("bad input ends with a message that names the thing, and without output") {
  const testing::TemporaryDirectory directory;
  std::ostringstream out;
  const auto fails = [&](const flux::Options& options, std::initializer_list<const char*> words) {
    try {
      flux::run(options, out);
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
  const auto change = [&](const std::filesystem::path& file, const nlohmann::json& patch) {
    auto json = nlohmann::json::parse(std::ifstream(model / file));
    const auto before = json;
    json.merge_patch(patch);
    std::ofstream(model / file) << json;
    return before;
  };
  const auto with = [&](const std::filesystem::path& file, const nlohmann::json& patch,
                        std::initializer_list<const char*> words) {
    const auto before = change(file, patch);
    fails(options, words);
    std::ofstream(model / file) << before;
  };
  with("model_index.json", {{"_class_name", "WanPipeline"}}, {"FluxPipeline", "WanPipeline"});
  with("model_index.json", {{"vae", nullptr}}, {"vae", "AutoencoderKL"});
  with("transformer/config.json", {{"num_attention_heads", -3}}, {"config.json", "num_attention_heads", "-3"});
  with("transformer/config.json", {{"attention_head_dim", 18}}, {"axes_dims_rope", "18"});
  with("transformer/config.json", {{"num_layers", 3}}, {"transformer_blocks.2", "transformer"});
  with("transformer/config.json", {{"num_layers", 1}}, {"transformer_blocks.1", "not part of the model"});
  with("transformer/config.json", {{"joint_attention_dim", 48}}, {"text_encoder_2", "48", "32"});
  with("text_encoder_2/config.json", {{"d_ff", 80}}, {"wi_0.weight", "[80, 32]", "[72, 32]"});
  with("vae/config.json", {{"norm_num_groups", 7}}, {"norm_num_groups"});
  with("scheduler/scheduler_config.json", {{"use_karras_sigmas", true}}, {"use_karras_sigmas"});
  const auto index = model / "transformer" / "diffusion_pytorch_model.safetensors.index.json";
  const auto weight_map = nlohmann::json::parse(std::ifstream(index)).at("weight_map");
  const std::string shards = weight_map.begin().key();
  with("transformer/diffusion_pytorch_model.safetensors.index.json", {{"weight_map", {{shards, "../x.safetensors"}}}},
       {"../x.safetensors"});
  with("transformer/diffusion_pytorch_model.safetensors.index.json", {{"weight_map", {{shards, "gone.safetensors"}}}},
       {"gone.safetensors"});
  const auto vae = model / "vae" / "diffusion_pytorch_model.safetensors";
  const auto bytes = std::filesystem::file_size(vae);
  std::filesystem::resize_file(vae, bytes - 1);
  fails(options, {"diffusion_pytorch_model.safetensors"});
  std::filesystem::resize_file(vae, 4);
  fails(options, {"diffusion_pytorch_model.safetensors"});

  options = small(directory, pipelines / "dev");
  const auto option = [&](auto set, std::initializer_list<const char*> words) {
    auto changed = options;
    set(changed);
    fails(changed, words);
  };
  option([](auto& o) { o.height = 0; }, {"height"});
  option([](auto& o) { o.quantize = "nf5"; }, {"nf5", "nf4"});
  option([](auto& o) { o.quantize = "unet=nf4"; }, {"unet", "transformer"});
  option([](auto& o) { o.block_size = 63; }, {"63", "64"});
  option([](auto& o) { o.offload = "some"; }, {"some", "leaf"});
  option(
      [](auto& o) {
        o.offload = "leaf";
        o.exclude = {"unet"};
      },
      {"unet", "transformer"});
  option([](auto& o) { o.device = "gpu"; }, {"gpu", "cuda:INDEX"});
  for (const double threshold : {std::nan(""), -1.0, 1e300})
    option([&](auto& o) { o.int8_threshold = threshold; }, {"--int8-threshold"});
  option([](auto& o) { o.pin_budget = "banana"; }, {"--pin-budget", "banana"});
  for (const char* output : {"", "picture.jpg", "picture", "folder/"})
    option([&](auto& o) { o.output = output; }, {"--output", output, ".png"});
  option(
      [&](auto& o) {
        o.report = (directory.path() / "r.json").string();
        o.output_latents = (directory.path() / "." / "r.json").string();
      },
      {"--output-latents", "--report"});
  option(
      [](auto& o) {
        o.num_images = 2;
        o.output_latents = o.output;
        o.output_latents.insert(o.output.size() - 4, "-1");
      },
      {"--output-latents", "--output", "picture-1.png"});
  option([](auto& o) { o.output = "/proc/nowhere/picture.png"; }, {"/proc/nowhere"});
  option([](auto& o) { o.latents = "gone.safetensors"; }, {"gone.safetensors"});
  option(
      [&](auto& o) {
        o.latents = (pipelines / "dev" / "expected.safetensors").string();
        o.num_images = 3;
      },
      {"latents"});
  option([](auto& o) { o.prompts.clear(); }, {"prompt"});
}

TEST_CASE("what is known at once is said before weights are read") {
  const testing::TemporaryDirectory directory;
  const auto model = copied(directory);
  std::filesystem::remove(model / "transformer" / "diffusion_pytorch_model.safetensors.index.json");
  const auto fails = [&](auto set) {
    auto options = small(directory, model);
    set(options);
    std::ostringstream out;
    return testing::message_of<Error>([&] { flux::run(options, out); });
  };
  CHECK(testing::first_missing(fails([](auto&) {}), {"transformer"}) == "");
  CHECK(testing::first_missing(fails([](auto& o) { o.exclude = {"unet"}; }), {"unet", "text_encoder_2"}) == "");
  CHECK(testing::first_missing(fails([&](auto& o) { o.tune = (directory.path() / "t").string(); }), {"--tune"}) == "");
  CHECK(testing::first_missing(fails([&](auto& o) { o.trace = (directory.path() / "t").string(); }), {"--trace"}) ==
        "");
  CHECK(testing::first_missing(fails([](auto& o) { o.width = 16400; }), {"width", "16384"}) == "");
  CHECK(testing::first_missing(fails([](auto& o) { o.quantize = "nf5"; }), {"nf5"}) == "");
}

TEST_CASE("options without effect are told") {
  const auto told = [](auto set) {
    flux::Options options;
    set(options);
    const auto sentences = options.without_effect();
    return sentences.empty() ? "" : sentences.front();
  };
  CHECK(told([](auto&) {}) == "");
  CHECK(testing::first_missing(told([](auto& o) { o.double_quant = true; }), {"--double-quant"}) == "");
  CHECK(told([](auto& o) {
          o.double_quant = true;
          o.quantize = "transformer=fp4";
        }) == "");
  CHECK(testing::first_missing(told([](auto& o) { o.lookahead = 2; }), {"--lookahead", "none"}) == "");
  CHECK(testing::first_missing(told([](auto& o) { o.skip = {"x"}; }), {"--skip", "--quantize"}) == "");

  const testing::TemporaryDirectory directory;
  auto model = flux::Model::open(pipelines / "dev");
  examples::WeightOptions weight_options;
  weight_options.plan = QuantizationPlan::parse("transformer=nf4", {}, {"proj_out", "nope"});
  const examples::Weights weights(model, weight_options);
  REQUIRE(weights.warnings().size() == 1);
  CHECK(testing::first_missing(weights.warnings()[0], {"--skip nope"}) == "");
}

TEST_CASE("a full disk leaves no partial file") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "dev");
  std::ostringstream out;
  const testing::FileSizeLimit limit(100);
  CHECK_THROWS_WITH_AS(flux::run(options, out), doctest::Contains("picture.png"), FileError);
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("Ctrl-C stops between steps, with status 130 and no partial file") {
  const testing::TemporaryDirectory directory;
  auto options = small(directory, pipelines / "dev");
  options.quiet = false;
  options.steps = 3;
  const examples::InterruptGuard guard;
  std::ostringstream out;
  // The watcher tells that denoising begins after it has looked for a signal, and looks again after the first step.
  const testing::InterruptAt interrupt("denoise: 3 steps");
  try {
    flux::run(options, out);
    FAIL("it went on");
  } catch (const examples::Interrupted& stop) {
    CHECK(stop.exit_code() == 130);
  }
  CHECK(interrupt.printed().find("denoise: 3 steps") != std::string::npos);
  CHECK(interrupt.printed().find("denoise 3/3") == std::string::npos);
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("a quantized directory draws the same bits as quantizing at load") {
  const testing::TemporaryDirectory directory;
  for (const char* format : {"nf4", "fp4", "int8"}) {
    CAPTURE(format);
    const std::string plan = std::string("transformer=") + format + ",text_encoder_2=" + format;
    FormatChoice choice;
    choice.block.nested = DoubleQuantization::on;
    const auto written = directory.path() / format;
    examples::quantize_pipeline(pipelines / "dev", written,
                                {QuantizationPlan::parse(plan, choice, {}), DType::f32, 40000}, [](const auto&) {});
    CHECK(std::filesystem::exists(written / "transformer" / "diffusion_pytorch_model.safetensors.index.json"));
    const auto latents = [&](flux::Options options, const std::string& name) {
      options.output_latents = (directory.path() / name).string();
      std::ostringstream out;
      flux::run(options, out);
      const auto file = SafetensorsFile::open(options.output_latents);
      std::vector<float> values(file.at("latents").shape.elements());
      copy_elements(file.at("latents"), std::span<float>(values));
      return values;
    };
    auto at_load = small(directory, pipelines / "dev");
    at_load.quantize = plan;
    at_load.double_quant = true;
    auto stored = small(directory, written);
    stored.quantize = "transformer=fp8,text_encoder_2=fp8";  // loses against what the files say
    CHECK(latents(at_load, "at_load") == latents(stored, "stored"));
    CHECK_THROWS_WITH_AS(
        examples::quantize_pipeline(written, directory.path() / "twice",
                                    {QuantizationPlan::parse(plan, choice, {}), DType::f32, 40000}, [](const auto&) {}),
        doctest::Contains("already"), ConfigError);
  }
  CHECK_FALSE(std::filesystem::exists(directory.path() / "twice"));
  CHECK_THROWS_WITH_AS(
      examples::quantize_pipeline(pipelines / "dev", directory.path() / "nf4",
                                  {QuantizationPlan::parse("nf4", {}, {}), DType::f32, 40000}, [](const auto&) {}),
      doctest::Contains("not empty"), FileError);
}
