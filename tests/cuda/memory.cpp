// A GPU whose memory is taken: errors say what would fit, nothing leaks, and all is well once there is memory again.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/engine.hpp"
#include "ebb/cuda/resource.hpp"
#include "flux/pipeline.hpp"
#include "support/flux_request.hpp"
#include "support/golden.hpp"
#include "support/temporary_directory.hpp"

using namespace ebb;

namespace {

using Buffer = cuda::DeviceBuffer<std::byte>;

constexpr std::size_t mebibyte = std::size_t{1} << 20;

std::size_t free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  cuda::check(cudaMemGetInfo(&free, &total));
  return free;
}

/// Takes device memory, in smaller and smaller pieces, until no `piece` bytes in one piece are left.
std::vector<Buffer> occupied(std::size_t piece) {
  std::vector<Buffer> taken;
  for (std::size_t bytes = free_bytes(); bytes >= piece;) {
    try {
      taken.emplace_back(bytes);
    } catch (const cuda::CudaError&) {
      bytes /= 2;
    }
  }
  return taken;
}

void nobody(const char*, std::size_t, std::size_t) {}

}  // namespace

TEST_CASE("without device memory, engines and runs fail with advice and succeed later") {
  const testing::Golden golden("dev");
  const auto request = testing::request_of(golden);
  auto model = flux::Model::open(golden.directory());
  const examples::Weights weights(model, {{}, DType::bf16, 1, {}});
  const auto machine = examples::cuda_machine<flux::Pipeline>(0, std::numeric_limits<std::size_t>::max());
  const std::vector<std::string> parts{"free", " less ", " for activations and scratch)", "--offload "};
  for (const OffloadSpec& policy : {OffloadSpec(NoOffload{}), OffloadSpec(LeafOffload{})}) {
    CAPTURE(policy.text());
    const examples::EngineOptions options{{policy, {}}, DType::bf16, Fusion::on};
    const auto expected = machine->engine(model, weights, options)->run(request, nobody).latents.values;
    const std::size_t before = free_bytes();
    {
      const auto taken = occupied(8 * mebibyte);  // less than cuBLASLt's workspace
      const auto message = testing::message_of<MemoryError>([&] { (void)machine->engine(model, weights, options); });
      CHECK(testing::first_missing(message, parts) == "");
    }
    CHECK(free_bytes() + 2 * mebibyte >= before);
    {
      const auto engine = machine->engine(model, weights, options);
      {
        const auto taken = occupied(mebibyte);  // the workspace's first piece
        const auto message = testing::message_of<MemoryError>([&] { (void)engine->run(request, nobody); });
        CHECK(testing::first_missing(message, parts) == "");
      }
      CHECK(engine->run(request, nobody).latents.values == expected);
    }
    CHECK(free_bytes() + 2 * mebibyte >= before);
  }
}
