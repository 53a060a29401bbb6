// A model of your own under offload: describe its members once, and names, arena layout and units follow. Streams its
// layers through a small arena and shows that the result keeps every bit.
#include <cstdio>
#include <tuple>
#include <vector>

#include "ebb/host.hpp"

struct Layer {
  static constexpr ebb::Level level = ebb::Level::block;
  ebb::nn::Linear up, down;
  static consteval auto members() { return std::tuple{ebb::field{"up", &Layer::up}, ebb::field{"down", &Layer::down}}; }
  template <class Context>
  void forward(Context& ctx, ebb::Matrix<float> x) const {
    const auto frame = ctx.workspace().frame();
    const auto hidden = ctx.matrix(x.rows, up.outputs());
    call(ctx, up, x, hidden, ebb::GeluTanh{});
    call(ctx, down, hidden, x, ebb::Residual{x});
  }
};

struct Model {
  static constexpr ebb::Level level = ebb::Level::model;
  ebb::Repeat<Layer> layers;
  static consteval auto members() { return std::tuple{ebb::field{"layers", &Model::layers}}; }
  template <class Context>
  void forward(Context& ctx, ebb::Matrix<float> x) const {
    for (const Layer& layer : layers) call(ctx, layer, x);
  }
};
static_assert(ebb::Module<Layer> && ebb::Module<Model>);

int main() {
  constexpr std::size_t width = 256, tokens = 32;
  Model model;
  for (int i = 0; i < 12; ++i)
    model.layers.push_back({ebb::nn::Linear::make(width, 4 * width), ebb::nn::Linear::make(4 * width, width)});
  const ebb::Outline outline = ebb::outline_of(model, "model");
  const ebb::AlignedBuffer home(outline.end);  // where weights live; a loader would fill it from a checkpoint
  auto* weights = reinterpret_cast<float*>(home.data());
  for (std::size_t i = 0; i < outline.end / sizeof(float); ++i)
    weights[i] = 0.02f * static_cast<float>(static_cast<int>(i * 2654435761u % 2001u) - 1000) / 1000.0f;

  std::vector<float> first;
  for (const char* policy : {"none", "model", "block:2", "leaf"}) {
    const auto spec = ebb::OffloadSpec::parse(policy);
    std::vector<ebb::Component> components{component_of(outline, home.data(), spec)};
    ebb::host::Streams streams;
    const ebb::AlignedBuffer device(ebb::host::Offload::plan(spec, components).arena_bytes);
    ebb::host::Offload group(spec, streams, ebb::host::Stream::compute, ebb::host::Stream::copy, components,
                             device.bytes());
    ebb::for_each_reference(outline,
                            [&](const auto& parameter) { parameter.bind(group.address(0, parameter.offset)); });

    ebb::Workspace workspace;
    ebb::host::Context<float> ctx(workspace, 1, &group);
    std::vector<float> x(tokens * width, 1.0f);
    call(ctx, model, ebb::Matrix<float>(x.data(), tokens, width));
    if (first.empty()) first = x;
    std::printf("%-8s %9zu bytes on the device, %9zu moved, %s\n", policy, group.plan().arena_bytes,
                group.statistics().bytes_moved, x == first ? "the same bits" : "DIFFERENT");
  }
}
