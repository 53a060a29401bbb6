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
void run(Model& model, const std::byte* weights, ebb::Matrix<float> x) {
  const auto spec = ebb::OffloadSpec::parse("leaf");  // or none, model, block:2, budget:6G
  const ebb::Outline outline = ebb::outline_of(model, "model");
  std::vector<ebb::Component> components{component_of(outline, weights, spec)};
  ebb::host::Streams streams;
  const ebb::AlignedBuffer device(ebb::host::Offload::plan(spec, components).arena_bytes);
  ebb::host::Offload group(spec, streams, ebb::host::Stream::compute, ebb::host::Stream::copy, components,
                           device.bytes());  // an OffloadGroup
  ebb::for_each_reference(outline, [&](const auto& parameter) { parameter.bind(group.address(0, parameter.offset)); });

  ebb::Workspace workspace;
  ebb::host::Context<float> ctx(workspace, 1, &group);
  call(ctx, model, x);  // waits for the weights of each layer, while the next ones are on their way
}
