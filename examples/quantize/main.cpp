// Turns a pipeline directory into a quantized one that diffusers with bitsandbytes loads, and flux and wan too.
#include <CLI/CLI.hpp>
#include <cstddef>
#include <iostream>
#include <string>
#include <vector>

#include "common/command_line.hpp"
#include "common/one_line.hpp"
#include "common/progress.hpp"
#include "common/run_options.hpp"
#include "quantize/quantize.hpp"

namespace {

struct Options {
  std::string model, output, quantize = "nf4", compute = "bf16", max_shard = "10G";
  std::size_t block_size = 64;
  bool double_quant = false, quiet = false;
  double int8_threshold = 6.0;
  std::vector<std::string> skip;

  /// Declares every option on `app`, writing into this object.
  void declare(CLI::App& app) {
    app.add_option("--model", model, "directory of a FluxPipeline or WanPipeline as diffusers saves it")->required();
    app.add_option("--output", output, "directory to write; must be new or empty")->required();
    app.add_option("--quantize", quantize, "FORMAT, or COMPONENT=FORMAT,...; formats: nf4, fp4, int8")
        ->capture_default_str();
    app.add_option("--block-size", block_size, "elements a scale (nf4, fp4)")
        ->check(ebb::examples::whole_number())
        ->capture_default_str();
    app.add_flag("--double-quant", double_quant, "quantize the scales too (nf4, fp4)");
    app.add_option("--int8-threshold", int8_threshold, "outlier threshold of int8")
        ->check(ebb::examples::number())
        ->capture_default_str();
    app.add_option("--skip", skip, "modules that stay dense, comma separated")->delimiter(',');
    app.add_option("--compute", compute, "type that readers compute in: fp32, bf16 or fp16")
        ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
        ->capture_default_str();
    app.add_option("--max-shard-size", max_shard, "bytes of one file, e.g. 5G")->capture_default_str();
    app.add_flag("--quiet", quiet, "print nothing but errors");
  }
};

void run(const Options& options) {
  ebb::FormatChoice format;
  ebb::check_block_size(options.block_size);
  format.block.block_size = options.block_size;
  if (options.double_quant) format.block.nested = ebb::DoubleQuantization::on;
  format.int8.outlier_threshold = ebb::examples::outlier_threshold(options.int8_threshold);
  const ebb::examples::QuantizeOptions what{ebb::QuantizationPlan::parse(options.quantize, format, options.skip),
                                            options.compute == "fp32"   ? ebb::DType::f32
                                            : options.compute == "fp16" ? ebb::DType::f16
                                                                        : ebb::DType::bf16,
                                            ebb::examples::bytes_of("--max-shard-size", options.max_shard)};
  ebb::examples::Progress progress(
      std::cerr, options.quiet ? ebb::examples::ProgressStyle::quiet : ebb::examples::progress_style());
  progress.begin("quantize");
  auto warnings = ebb::examples::quantize_pipeline(options.model, options.output, what,
                                                   [&](const std::string&) { progress.advance(); });
  progress.finish();
  if (options.double_quant && options.quantize.find("nf4") == std::string::npos &&
      options.quantize.find("fp4") == std::string::npos)
    warnings.emplace_back("--double-quant has no effect without nf4 or fp4");
  if (options.quiet) return;
  for (const std::string& sentence : warnings) std::cerr << "warning: " << ebb::examples::one_line(sentence) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Quantizes the linears of a FluxPipeline or WanPipeline directory, in bitsandbytes' layout.",
               "quantize");
  Options options;
  options.declare(app);
  return ebb::examples::run_command_line(app, argc, argv, [&] { run(options); });
}
