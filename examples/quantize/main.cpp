// Turns a pipeline directory into a quantized one that diffusers with bitsandbytes loads, and flux too.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "common/interrupt.hpp"
#include "common/progress.hpp"
#include "ebb/offload/policy.hpp"
#include "quantize/quantize.hpp"

namespace {

struct Options {
  std::string model, output, quantize = "nf4", compute = "bf16", max_shard = "10G";
  std::size_t block_size = 64;
  bool double_quant = false, quiet = false;
  double int8_threshold = 6.0;
  std::vector<std::string> skip;
};

void run(const Options& options) {
  ebb::FormatChoice format;
  ebb::check_block_size(options.block_size);
  format.block.block_size = options.block_size;
  if (options.double_quant) format.block.nested = ebb::DoubleQuantization::on;
  format.int8.outlier_threshold = static_cast<float>(options.int8_threshold);
  const ebb::examples::QuantizeOptions what{
      ebb::QuantizationPlan::parse(options.quantize, format, options.skip),
      options.compute == "fp32" ? ebb::DType::f32 : options.compute == "fp16" ? ebb::DType::f16 : ebb::DType::bf16,
      ebb::parse_bytes(options.max_shard)};
  ebb::examples::Progress progress(std::cerr, options.quiet ? ebb::examples::ProgressStyle::quiet
                                                            : ebb::examples::progress_style());
  progress.begin("quantize");
  ebb::examples::quantize_pipeline(options.model, options.output, what, [&](const std::string&) {
    ebb::examples::throw_if_interrupted();
    progress.advance();
  });
}

}  // namespace

int main(int argc, char** argv) {
  const ebb::examples::InterruptGuard interrupts;
  try {
    CLI::App app("Quantizes the linears of a FluxPipeline directory, in bitsandbytes' layout.", "quantize");
    Options options;
    app.add_option("--model", options.model, "directory of a FluxPipeline as diffusers saves it")->required();
    app.add_option("--output", options.output, "directory to write; must be new or empty")->required();
    app.add_option("--quantize", options.quantize, "FORMAT, or COMPONENT=FORMAT,...; formats: nf4, fp4, int8")
        ->capture_default_str();
    app.add_option("--block-size", options.block_size, "elements a scale (nf4, fp4)")->capture_default_str();
    app.add_flag("--double-quant", options.double_quant, "quantize the scales too (nf4, fp4)");
    app.add_option("--int8-threshold", options.int8_threshold, "outlier threshold of int8")->capture_default_str();
    app.add_option("--skip", options.skip, "modules that stay dense, comma separated")->delimiter(',');
    app.add_option("--compute", options.compute, "type that readers compute in: fp32, bf16 or fp16")
        ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
        ->capture_default_str();
    app.add_option("--max-shard-size", options.max_shard, "bytes of one file, e.g. 5G")->capture_default_str();
    app.add_flag("--quiet", options.quiet, "print nothing but errors");
    CLI11_PARSE(app, argc, argv);
    run(options);
    return 0;
  } catch (const ebb::examples::Interrupted& stop) {
    std::fputs("quantize: stopped\n", stderr);
    return stop.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quantize: %s\n", error.what());
    return 1;
  }
}
