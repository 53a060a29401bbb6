#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ebb/core/error.hpp"
#include "ebb/core/shape.hpp"
#include "ebb/format/blockwise.hpp"
#include "ebb/format/dense.hpp"
#include "ebb/format/format.hpp"

namespace ebb {

/// A tensor in `Format`: shape, options, and a view of the one segment that holds all its parts. Does not own
/// the segment; whoever moves the bytes calls `bind` with the new address. Default-constructed: empty and
/// unbound.
///
/// The part accessors only compute addresses, so they are valid for a segment in device memory as well; only
/// `scale` reads, and needs a segment that the host can read.
template <QuantFormat Format>
class QuantizedTensor {
 public:
  using format_type = Format;
  using Options = typename Format::Options;
  using Code = typename Format::Code;

  QuantizedTensor() = default;
  /// Unbound. @throws ConfigError for impossible options, ShapeError when a size overflows
  explicit QuantizedTensor(Shape shape, Options options = {})
      : shape_(shape),
        options_(options),
        layout_(Format::layout(shape, options)),
        group_(Format::group(shape, options)),
        elements_(shape.elements()) {}

  const Shape& shape() const { return shape_; }
  const Options& options() const { return options_; }
  const SegmentLayout& layout() const { return layout_; }
  /// Size of the segment, padding included; a multiple of `segment_alignment`.
  std::size_t bytes() const { return layout_.bytes; }
  std::size_t elements() const { return elements_; }
  /// Elements that are encoded together (a block, a row; 1 for dense formats), see `QuantFormat`.
  std::size_t group() const { return group_; }
  /// Number of such groups; the last one may be short.
  std::size_t groups() const { return group_ == 0 ? 0 : ceil_divide(elements_, group_); }

  /// Points the view at `segment`: `bytes()` bytes, aligned to `segment_alignment`, alive as long as the view
  /// is used.
  void bind(const std::byte* segment) { segment_ = segment; }
  bool bound() const { return segment_ != nullptr; }
  /// @throws MemoryError when no segment is bound
  const std::byte* segment() const {
    if (segment_ == nullptr)
      throw MemoryError(concat("a tensor of shape ", shape_.text(), " in ", Format::name,
                               " is used while it is not in memory: load it, or enter its module, first"));
    return segment_;
  }

  /// The elements, row-major.
  std::span<const Code> values() const
    requires DenseFormat<Format>
  {
    return part<Code>(layout_.codes_offset, elements_);
  }

  /// The codes, row-major: one each element, or for 4-bit formats one byte each two elements.
  std::span<const Code> codes() const
    requires ScaledFormat<Format>
  {
    return part<Code>(layout_.codes_offset, layout_.codes_bytes / sizeof(Code));
  }

  /// True when the scales are 8-bit codes with nested state.
  bool nested() const { return layout_.nested_bytes != 0; }

  /// One float32 scale a group. @throws ConfigError under double quantization
  std::span<const float> scales() const
    requires ScaledFormat<Format>
  {
    if (nested())
      throw ConfigError("the scales of this tensor are quantized themselves: read scale_codes(), not scales()");
    return part<float>(layout_.scales_offset, groups());
  }

  /// One 8-bit code a block. @throws ConfigError without double quantization (so do the other nested parts)
  std::span<const std::uint8_t> scale_codes() const
    requires BlockFormat<Format>
  {
    return nested_part<std::uint8_t>(layout_.scales_offset, groups());
  }
  /// The 256 values of scale codes.
  std::span<const float> nested_map() const
    requires BlockFormat<Format>
  {
    return nested_part<float>(layout_.nested_offset + nested_map_at, nested_map_size);
  }
  /// One float32 for each 256 blocks.
  std::span<const float> nested_scales() const
    requires BlockFormat<Format>
  {
    return nested_part<float>(layout_.nested_offset + nested_scales_at, ceil_divide(groups(), nested_block_size));
  }
  /// Address of the float32 mean that was subtracted from the scales (bitsandbytes calls it offset).
  const float* nested_offset() const
    requires BlockFormat<Format>
  {
    return nested_part<float>(layout_.nested_offset + nested_mean_at(layout_), 1).data();
  }

  /// The float32 scale of one group; under double quantization map[code] * nested scale + offset, each
  /// operation rounded. Reads memory: host segments only.
  float scale(std::size_t group) const
    requires ScaledFormat<Format>
  {
    require(group < groups(), "scale: there is no such group in the tensor");
    if constexpr (BlockFormat<Format>) {
      if (nested())
        return nested_scale(nested_map()[scale_codes()[group]], nested_scales()[group / nested_block_size],
                            *nested_offset());
    }
    return scales()[group];
  }

 private:
  template <class T>
  std::span<const T> part(std::size_t offset, std::size_t count) const {
    if (count == 0) return {};  // an empty tensor has no segment
    return {reinterpret_cast<const T*>(segment() + offset), count};
  }
  template <class T>
  std::span<const T> nested_part(std::size_t offset, std::size_t count) const {
    if (!nested())
      throw ConfigError("the scales of this tensor are plain float32: read scales(), not the nested parts");
    return part<T>(offset, count);
  }

  Shape shape_;
  Options options_{};
  SegmentLayout layout_;
  std::size_t group_ = 0;
  std::size_t elements_ = 0;
  const std::byte* segment_ = nullptr;
};

/// Biases and norm weights: always float32 in memory.
using Vector = QuantizedTensor<F32>;

}  // namespace ebb
