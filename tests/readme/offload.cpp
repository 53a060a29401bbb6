#include <tuple>

#include "ebb/host.hpp"

struct Model {
  static constexpr ebb::Level level = ebb::Level::model;
  ebb::Repeat<ebb::nn::Linear> layers;
  static consteval auto members() { return std::tuple{ebb::field{"layers", &Model::layers}}; }
  template <class Context>
  void forward(Context& ctx, ebb::Matrix<float> x) const {
    for (const ebb::nn::Linear& layer : layers) {
      const auto frame = ctx.workspace().frame();
      const auto y = ctx.matrix(x.rows, layer.outputs());
      call(ctx, layer, x, y, ebb::GeluTanh{});
      copy(ctx, y, x);
    }
  }
};

// README.md shows what follows.
void run(Model& model, const ebb::Checkpoint& checkpoint, ebb::Matrix<float> x) {
  const ebb::Loader loader(model, "model", checkpoint, {.format = {.kind = ebb::FormatChoice::Kind::nf4}});
  const ebb::AlignedBuffer home(loader.bytes());
  loader.fill(home.bytes());  // quantizes; what bitsandbytes quantized stays as it is

  const auto spec = ebb::OffloadSpec::parse("leaf");  // or none, model, block:2, budget:6G
  std::vector<ebb::Component> components{component_of(loader.outline(), home.data(), spec)};
  ebb::host::Streams streams;
  const ebb::AlignedBuffer device(ebb::host::Offload::plan(spec, components).arena_bytes);
  ebb::host::Offload group(spec, streams, ebb::host::Stream::compute, ebb::host::Stream::copy, components,
                           device.bytes());  // an OffloadGroup
  ebb::bind_parameters(loader.outline(), home.data(), [&](std::size_t offset) { return group.address(0, offset); });

  ebb::Workspace workspace;
  ebb::host::Context<float> ctx(workspace, 1, &group);
  call(ctx, model, x);  // waits for the weights of each layer, while the next ones are on their way
}
